// Products of activations with 4-bit weights: y[m, n] = sum_k x[m, k] * code[w[n, k]] * scale[n, k / 64].
//
// Compiled at run time for the GPU that is there (four_bit.py), with no header and no toolkit.
//
// Layout. Weights lie in tiles of 16 rows by 64 columns, a tile's 512 bytes one after the other,
// the tiles of 16 rows along k: [rows / 16][k / 64][lane][16 bytes]. Lane 4 g + c of a warp holds
// rows g and g + 8, columns 8 c to 8 c + 7 of both halves of the tile: byte 4 s + j is row
// g + 8 (j & 1), columns 32 (s >> 1) + 8 c + 4 (s & 1) + 2 (j >> 1) and the next, the first one in
// the high nibble. So a warp reads a tile with one 16-byte load a lane, and the bytes of step s are
// the fragment that mma.m16n8k16 takes from this lane, for columns in an order that the activations
// follow. Scales and offsets: [rows / 16][k / group][g][rows g and g + 8].
//
// A byte is two weights, so a table of 256 pairs makes both with one look-up; each bank of shared
// memory has a copy of its own (32 KiB), and no two lanes ever wait for each other.

#define WARP 32u
#define TABLE_WORDS (256 * 32)

typedef unsigned int u32;
typedef unsigned short u16;

#ifdef BF16
#define PAIR "bf16x2"
#else
#define PAIR "f16x2"
#endif

__device__ __forceinline__ u32 pack(float low, float high) {
  u32 pair;
#ifdef BF16
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
  return pair;
}

__device__ __forceinline__ u16 narrow(float value) { return (u16)(pack(value, 0.f) & 0xffffu); }

__device__ __forceinline__ float widen(u16 value) {
#ifdef BF16
  return __uint_as_float((u32)value << 16);
#else
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
  return wide;
#endif
}

__device__ __forceinline__ u32 half_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ u32 multiply_add(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

__device__ __forceinline__ float sum_of(u32 pair) {
  float low, high;
  asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
      : "=f"(low), "=f"(high) : "r"(pair));
  return low + high;
}

__device__ __forceinline__ void mma(float* d, const u32* a, u32 b0, u32 b1) {
#ifdef BF16
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
#endif
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint4 stream_in(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}

// Byte b -> (code[b >> 4], code[b & 15]), one copy for each bank.
template <bool HALF>
__device__ __forceinline__ void fill_table(u32* table, const float* code) {
  for (u32 byte = threadIdx.x; byte < 256; byte += blockDim.x) {
    float first = code[byte >> 4], second = code[byte & 15];
    u32 pair = HALF ? half_pair(first, second) : pack(first, second);
    uint4 four = make_uint4(pair, pair, pair, pair);
    uint4* row = (uint4*)(table + byte * 32);
#pragma unroll
    for (u32 i = 0; i < 8; i++) row[(i + byte) & 7] = four;
  }
}

#ifdef ONLY_four_bit_vector
// One row of activations. A block has GROUPS row tiles at a time, SPLIT warps to each; the warps of
// a tile take its k-tiles in turns. x is scaled to at most 1 and kept as float16 in shared memory,
// so that nothing overflows; sums of a tile are float16 pairs of 8 terms, the rest float32.
extern "C" __global__ void __launch_bounds__(GROUPS * SPLIT * 32)
four_bit_vector(const uint4* __restrict__ weights, const float* __restrict__ scales, const float* __restrict__ code,
                const u16* __restrict__ x, const u16* __restrict__ bias, u16* __restrict__ y, int rows, int columns) {
  extern __shared__ uint4 shared[];
  u32* table = (u32*)shared;
  u32* input = table + TABLE_WORDS;            // columns / 2 words
  float* partial = (float*)(input + columns / 2);  // [GROUPS][SPLIT][16]
  __shared__ float warp_largest[GROUPS * SPLIT];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const u32 group = warp / SPLIT, part = warp % SPLIT;
  const int tiles = rows >> 4, k_tiles = columns >> 6;

  uint4 next[AHEAD];
  float low[AHEAD], high[AHEAD];
  int tile = blockIdx.x * GROUPS + group;
  auto fetch = [&](int slot, int t, int k) {
    if (t < tiles && k < k_tiles) {
      size_t at = (size_t)t * k_tiles + k;
      next[slot] = stream_in(weights + at * WARP + lane);
      low[slot] = __ldg(scales + at * 16 + g);
      high[slot] = __ldg(scales + at * 16 + 8 + g);
    }
  };
#pragma unroll
  for (int slot = 0; slot < AHEAD; slot++) fetch(slot, tile, part + slot * SPLIT);

  fill_table<true>(table, code);
  float largest = 0.f;
  for (int i = threadIdx.x; i < columns / 8; i += blockDim.x) {
    uint4 v = ((const uint4*)x)[i];
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++)
      largest = fmaxf(largest, fmaxf(fabsf(widen(words[j] & 0xffff)), fabsf(widen(words[j] >> 16))));
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, o));
  if (lane == 0) warp_largest[warp] = largest;
  __syncthreads();
  for (int w = 0; w < GROUPS * SPLIT; w++) largest = fmaxf(largest, warp_largest[w]);
  // a power of two, so that scaling rounds nothing; zero and not-a-number are left alone
  u32 exponent = (__float_as_uint(largest) >> 23) & 255u;
  bool plain = exponent > 0 && exponent < 250;
  float shrink = plain ? __uint_as_float((253u - exponent) << 23) : 1.f;
  float grow = plain ? __uint_as_float((exponent + 1u) << 23) : 1.f;
  for (int i = threadIdx.x; i < columns / 8; i += blockDim.x) {
    uint4 v = ((const uint4*)x)[i];
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    uint4 half;
    u32* to = (u32*)&half;
#pragma unroll
    for (int j = 0; j < 4; j++)
      to[j] = half_pair(widen(words[j] & 0xffff) * shrink, widen(words[j] >> 16) * shrink);
    ((uint4*)input)[i] = half;
  }
  __syncthreads();

  const u32* mine = table + lane;
  for (; tile - (int)group < tiles; tile += gridDim.x * GROUPS) {  // the same turns for all warps
    float upper = 0.f, lower = 0.f;
    for (int k0 = part; k0 < k_tiles; k0 += SPLIT * AHEAD) {
#pragma unroll
      for (int slot = 0; slot < AHEAD; slot++) {
        int k = k0 + slot * SPLIT;
        if (k < k_tiles && tile < tiles) {
          const uint4 held = next[slot];
          const float s0 = low[slot], s1 = high[slot];
          int ahead = k + SPLIT * AHEAD;
          if (ahead < k_tiles) fetch(slot, tile, ahead);
          const uint4* xs = (const uint4*)(input + k * 32 + c * 8);
          uint4 x0 = xs[0], x1 = xs[1];
          const u32 xw[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
          const u32 bytes[4] = {held.x, held.y, held.z, held.w};
          u32 a = 0, b = 0;
#pragma unroll
          for (int s = 0; s < 4; s++) {
            u32 q = bytes[s];
            a = multiply_add(mine[(q & 255) * 32], xw[2 * s], a);
            b = multiply_add(mine[((q >> 8) & 255) * 32], xw[2 * s], b);
            a = multiply_add(mine[((q >> 16) & 255) * 32], xw[2 * s + 1], a);
            b = multiply_add(mine[(q >> 24) * 32], xw[2 * s + 1], b);
          }
          upper += sum_of(a) * s0;
          lower += sum_of(b) * s1;
        }
      }
    }
    int following = tile + gridDim.x * GROUPS;
#pragma unroll
    for (int slot = 0; slot < AHEAD; slot++) fetch(slot, following, part + slot * SPLIT);
#pragma unroll
    for (int o = 1; o < 4; o <<= 1) {
      upper += __shfl_xor_sync(~0u, upper, o);
      lower += __shfl_xor_sync(~0u, lower, o);
    }
    if (c == 0) {
      partial[(group * SPLIT + part) * 16 + g] = upper;
      partial[(group * SPLIT + part) * 16 + 8 + g] = lower;
    }
    __syncthreads();
    if (part == 0 && lane < 16 && tile < tiles) {
      float sum = 0.f;
#pragma unroll
      for (int p = 0; p < SPLIT; p++) sum += partial[(group * SPLIT + p) * 16 + lane];
      int row = tile * 16 + lane;
      y[row] = narrow(sum * grow + (bias ? widen(bias[row]) : 0.f));
    }
    __syncthreads();
  }
}
#endif

#ifdef ONLY_four_bit_matrix
// Up to 8 * TOKENS rows of activations, on tensor cores. A block takes TILES row tiles and one of
// gridDim.y parts of k; its WARPS warps take the k-tiles of that part in turns, each all row tiles, so
// that activations are read once for TILES * 16 rows. A scale belongs to a tile's row: four steps
// are summed unscaled, then scaled into the total. With one part the result goes to y, else each
// part's sums go to `parts` [gridDim.y, count, rows] in float32, which four_bit_join adds up.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
four_bit_matrix(const uint4* __restrict__ weights, const float* __restrict__ scales, const float* __restrict__ code,
                const u16* __restrict__ x, const u16* __restrict__ bias, u16* __restrict__ y, float* __restrict__ parts,
                int rows, int columns, int count) {
  extern __shared__ uint4 shared[];
  u32* table = (u32*)shared;
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6, tile0 = blockIdx.x * TILES, tiles = rows >> 4;
  const int per = (k_tiles + gridDim.y - 1) / gridDim.y;
  const int begin = blockIdx.y * per, end = min(begin + per, k_tiles);

  uint4 next[TILES];
  float low[TILES], high[TILES];
  auto fetch = [&](int k) {
#pragma unroll
    for (int r = 0; r < TILES; r++)
      if (k < end && tile0 + r < tiles) {
        size_t at = (size_t)(tile0 + r) * k_tiles + k;
        next[r] = stream_in(weights + at * WARP + lane);
        low[r] = __ldg(scales + at * 16 + g);
        high[r] = __ldg(scales + at * 16 + 8 + g);
      }
  };
  fetch(begin + warp);
  fill_table<false>(table, code);
  __syncthreads();

  float total[TILES][TOKENS][4];
#pragma unroll
  for (int r = 0; r < TILES; r++)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) total[r][n][i] = 0.f;

  const u32* mine = table + lane;
  for (int k = begin + warp; k < end; k += WARPS) {
    uint4 held[TILES];
    float s0[TILES], s1[TILES];
#pragma unroll
    for (int r = 0; r < TILES; r++) held[r] = next[r], s0[r] = low[r], s1[r] = high[r];
    uint4 input[TOKENS][2];
#pragma unroll
    for (int n = 0; n < TOKENS; n++) {
      int token = n * 8 + g;
      const uint4* at = (const uint4*)(x + (size_t)token * columns + k * 64 + c * 16);
      bool there = token < count;
      input[n][0] = there ? __ldg(at) : make_uint4(0, 0, 0, 0);
      input[n][1] = there ? __ldg(at + 1) : make_uint4(0, 0, 0, 0);
    }
    fetch(k + WARPS);
#pragma unroll
    for (int r = 0; r < TILES; r++) {
      float sums[TOKENS][4];
#pragma unroll
      for (int n = 0; n < TOKENS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] = 0.f;
      const u32 bytes[4] = {held[r].x, held[r].y, held[r].z, held[r].w};
#pragma unroll
      for (int s = 0; s < 4; s++) {
        u32 q = bytes[s];
        const u32 a[4] = {mine[(q & 255) * 32], mine[((q >> 8) & 255) * 32],
                          mine[((q >> 16) & 255) * 32], mine[(q >> 24) * 32]};
#pragma unroll
        for (int n = 0; n < TOKENS; n++) {
          const u32* xw = (const u32*)&input[n][0];
          mma(sums[n], a, xw[2 * s], xw[2 * s + 1]);
        }
      }
#pragma unroll
      for (int n = 0; n < TOKENS; n++) {
        total[r][n][0] += sums[n][0] * s0[r];
        total[r][n][1] += sums[n][1] * s0[r];
        total[r][n][2] += sums[n][2] * s1[r];
        total[r][n][3] += sums[n][3] * s1[r];
      }
    }
  }

  // the warps' sums of one row tile at a time through the table's place
  float* share = (float*)table;
#pragma unroll
  for (int r = 0; r < TILES; r++) {
    __syncthreads();
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) share[((warp * TOKENS + n) * 4 + i) * 32 + lane] = total[r][n][i];
    __syncthreads();
    for (int at = threadIdx.x; at < TOKENS * 128; at += blockDim.x) {
      float sum = 0.f;
      for (int w = 0; w < WARPS; w++) sum += share[w * TOKENS * 128 + at];
      int l = at & 31, i = (at >> 5) & 3, n = at >> 7;
      int row = (tile0 + r) * 16 + (l >> 2) + ((i & 2) ? 8 : 0), token = n * 8 + (l & 3) * 2 + (i & 1);
      if (row < rows && token < count) {
        if (gridDim.y == 1)
          y[(size_t)token * rows + row] = narrow(sum + (bias ? widen(bias[row]) : 0.f));
        else
          parts[((size_t)blockIdx.y * count + token) * rows + row] = sum;
      }
    }
  }
}
#endif

#ifdef ONLY_four_bit_join
// Adds up what the parts of four_bit_matrix left: y[i] = sum over parts + bias.
extern "C" __global__ void four_bit_join(const float* __restrict__ parts, const u16* __restrict__ bias,
                                         u16* __restrict__ y, int rows, int size, int many) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= size) return;
  float sum = bias ? widen(bias[at % rows]) : 0.f;
  for (int p = 0; p < many; p++) sum += parts[(size_t)p * size + at];
  y[at] = narrow(sum);
}
#endif

#ifdef ONLY_four_bit_expand
// The weights themselves, [rows, columns]: a warp writes one tile.
extern "C" __global__ void four_bit_expand(const uint4* __restrict__ weights, const float* __restrict__ scales,
                                           const float* __restrict__ code, u16* __restrict__ y, int rows, int columns) {
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = code[threadIdx.x];
  __syncthreads();
  const u32 lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6;
  size_t tile = (size_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (tile >= (size_t)(rows >> 4) * k_tiles) return;
  int row = (int)(tile / k_tiles) * 16 + g, column = (int)(tile % k_tiles) * 64 + c * 16;
  uint4 held = weights[tile * WARP + lane];
  const u32 bytes[4] = {held.x, held.y, held.z, held.w};
  const float scale[2] = {scales[tile * 16 + g], scales[tile * 16 + 8 + g]};
#pragma unroll
  for (int half = 0; half < 2; half++) {
    uint4 out[2];
    u32* to = (u32*)out;
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
      for (int p = 0; p < 2; p++) {
        u32 byte = (bytes[s] >> (8 * (2 * p + half))) & 255;
        to[2 * s + p] = pack(values[byte >> 4] * scale[half], values[byte & 15] * scale[half]);
      }
    uint4* at = (uint4*)(y + (size_t)(row + 8 * half) * columns + column);
    at[0] = out[0];
    at[1] = out[1];
  }
}
#endif
