// Products of activations with 4-bit weights:
// y[m, n] = sum_k x[m, k] * (code[w[n, k]] * scale[n, k / group] - offset[n, k / group]).
//
// Layout. Weights lie in tiles of 16 rows by 64 columns, a tile's 512 bytes one after the other,
// the tiles of 16 rows along k: [rows / 16][k / 64][lane][16 bytes]. Lane 4 g + c of a warp holds
// rows g and g + 8, columns 8 c to 8 c + 7 of both halves of the tile: byte 4 s + j is row
// g + 8 (j & 1), columns 32 (s >> 1) + 8 c + 4 (s & 1) + 2 (j >> 1) and the next, the first one in
// the high nibble. So a warp reads a tile with one 16-byte load a lane, and the bytes of step s are
// the fragment that mma.m16n8k16 takes from this lane, for columns in an order that the activations
// follow. Scales and offsets: [rows / 16][k / group][g][rows g and g + 8], GROUPS of them in a tile.
//
// A byte is two weights, so a table of 256 pairs makes both with one look-up; each bank of shared
// memory has a copy of its own (32 KiB), and no two lanes ever wait for each other.
//
// GATED: row tiles come in pairs, gate and up, and y is silu(gate) * up, half as wide.

#define WARP 32u
#define TABLE_WORDS (256 * 32)
#ifdef GATED
#define PAIRED 2
#else
#define PAIRED 1
#endif

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

// Activations and residuals are not marked as read-only, or their loads might be moved to before the
// wait for the kernel that writes them. Volatile keeps loads of weights ahead of what uses them.
__device__ __forceinline__ uint4 stream_in(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}

__device__ __forceinline__ float2 stream_in(const float2* at) {
  float2 v;
  asm volatile("ld.global.nc.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at));
  return v;
}

// Byte b -> (code[b >> 4], code[b & 15]), one copy for each bank.
template <bool HALF>
__device__ __forceinline__ void fill_table(u32* table, const float* code) {
  for (u32 word = threadIdx.x; word < 256 * 8; word += blockDim.x) {
    u32 byte = word >> 3;
    float first = __ldg(code + (byte >> 4)), second = __ldg(code + (byte & 15));
    u32 pair = HALF ? half_pair(first, second) : pack(first, second);
    ((uint4*)table)[word] = make_uint4(pair, pair, pair, pair);
  }
}

// True for the last block that comes here, whose reads then see what the others wrote before.
// The counter is zero again afterwards. All threads of the block call it.
__device__ __forceinline__ bool last_to_arrive(u32* counter, u32 many) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) == many - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

#ifdef ONLY_four_bit_vector
// One row of activations. Each warp keeps the activations of TILES k-tiles in registers, scaled to
// at most 1 and as float16, and multiplies them with one row tile after the other; the warps of a
// block are side by side along k, the PARTS of k are blocks. Sums of 8 terms are float16 pairs, the
// rest float32. While one row tile is computed, the next one is on its way from memory.
// NORM: x becomes x * rsqrt(mean(x^2) + eps) * norm first; then PARTS is 1.
extern "C" __global__ void __launch_bounds__(WARPS * 32, 16 / WARPS)
four_bit_vector(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
                const float* __restrict__ code, const u16* x, const u16* __restrict__ norm, float eps,
                const u16* __restrict__ bias, const u16* residual, u16* y,
                float* sums, u32* counters, int rows, int columns) {
  extern __shared__ uint4 shared[];
  u32* table = (u32*)shared;
  __shared__ float partial[2][PAIRED][WARPS][16];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6, units = (rows >> 4) / PAIRED;
  const int part = blockIdx.x % PARTS, stride = gridDim.x / PARTS;
  const int per = (k_tiles + PARTS - 1) / PARTS, first = part * per, end = min(first + per, k_tiles);

  uint4 next[TILES];
  float2 scale[TILES][GROUPS];
#ifdef OFFSETS
  float2 offset[TILES][GROUPS];
#endif
  auto fetch = [&](int slot, int row_tile) {
    int k = first + warp + slot * WARPS;
    if (row_tile < units * PAIRED && k < end) {
      size_t at = (size_t)row_tile * k_tiles + k;
      next[slot] = stream_in(weights + at * WARP + lane);
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        scale[slot][i] = stream_in(scales + (at * GROUPS + i) * 8 + g);
#ifdef OFFSETS
        offset[slot][i] = stream_in(offsets + (at * GROUPS + i) * 8 + g);
#endif
      }
    } else {
      next[slot] = make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        scale[slot][i] = make_float2(0.f, 0.f);
#ifdef OFFSETS
        offset[slot][i] = make_float2(0.f, 0.f);
#endif
      }
    }
  };
  int unit = blockIdx.x / PARTS;
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) fetch(slot, unit * PAIRED);
  fill_table<true>(table, code);
  let_next_start();
  wait_for_input();

  // activations: 16 columns of each k-tile
  u32 input[TILES][8];
  auto columns_of = [&](int slot, int half) { return (first + warp + slot * WARPS) * 64 + half * 32 + c * 8; };
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    bool there = first + warp + slot * WARPS < end;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      uint4 v = there ? *(const uint4*)(x + columns_of(slot, half)) : make_uint4(0, 0, 0, 0);
      u32* to = &input[slot][half * 4];
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
  }
#ifdef NORM
  float squares = 0.f;
#pragma unroll
  for (int slot = 0; slot < TILES; slot++)
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float low = low_of(input[slot][j]), high = high_of(input[slot][j]);
      squares += low * low + high * high;
    }
#pragma unroll
  for (int o = 1; o < 4; o <<= 1) squares += __shfl_xor_sync(~0u, squares, o);
  __shared__ float warp_squares[WARPS];
  if (lane == 0) warp_squares[warp] = squares;
  __syncthreads();
  squares = 0.f;
#pragma unroll
  for (int w = 0; w < WARPS; w++) squares += warp_squares[w];
  const float by = rsqrtf(squares / columns + eps);
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    bool there = first + warp + slot * WARPS < end;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      uint4 v = there ? __ldg((const uint4*)(norm + columns_of(slot, half))) : make_uint4(0, 0, 0, 0);
      const u32 factors[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u32& word = input[slot][half * 4 + j];
        word = pack(low_of(word) * by * low_of(factors[j]), high_of(word) * by * high_of(factors[j]));
      }
    }
  }
#endif
  float largest = 0.f;
#pragma unroll
  for (int slot = 0; slot < TILES; slot++)
#pragma unroll
    for (int j = 0; j < 8; j++)
      largest = fmaxf(largest, fmaxf(fabsf(low_of(input[slot][j])), fabsf(high_of(input[slot][j]))));
#pragma unroll
  for (int o = 1; o < 4; o <<= 1) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, o));
  __shared__ float warp_largest[WARPS];
  if (lane == 0) warp_largest[warp] = largest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, warp_largest[w]);
  // a power of two, so that scaling rounds nothing; zero and not-a-number are left alone
  u32 exponent = (__float_as_uint(largest) >> 23) & 255u;
  bool plain = exponent > 0 && exponent < 250;
  float shrink = plain ? __uint_as_float((253u - exponent) << 23) : 1.f;
  float grow = plain ? __uint_as_float((exponent + 1u) << 23) : 1.f;
#ifdef OFFSETS
  float total[TILES][GROUPS];
#endif
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
#ifdef OFFSETS
#pragma unroll
    for (int i = 0; i < GROUPS; i++) total[slot][i] = 0.f;
#endif
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float low = low_of(input[slot][j]) * shrink, high = high_of(input[slot][j]) * shrink;
      input[slot][j] = half_pair(low, high);
#ifdef OFFSETS
      total[slot][GROUPS == 2 ? j >> 2 : 0] += low + high;
#endif
    }
  }

  const u32* mine = table + lane;
  for (int turn = 0; unit < units; unit += stride, turn++) {
    const int buffer = turn & 1;
#pragma unroll
    for (int pair = 0; pair < PAIRED; pair++) {
      const int following = pair + 1 < PAIRED ? unit * PAIRED + pair + 1 : (unit + stride) * PAIRED;
      float upper = 0.f, lower = 0.f;
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        const uint4 held = next[slot];
        float2 s[GROUPS];
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          s[i] = scale[slot][i];
#ifdef OFFSETS
          upper -= offset[slot][i].x * total[slot][i];
          lower -= offset[slot][i].y * total[slot][i];
#endif
        }
        fetch(slot, following);
        const u32 bytes[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          u32 a = 0, b = 0;
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++) {
            u32 q = bytes[step];
            a = multiply_add(mine[(q & 255) * 32], input[slot][2 * step], a);
            b = multiply_add(mine[((q >> 8) & 255) * 32], input[slot][2 * step], b);
            a = multiply_add(mine[((q >> 16) & 255) * 32], input[slot][2 * step + 1], a);
            b = multiply_add(mine[(q >> 24) * 32], input[slot][2 * step + 1], b);
          }
          upper += sum_of(a) * s[i].x;
          lower += sum_of(b) * s[i].y;
        }
      }
#pragma unroll
      for (int o = 1; o < 4; o <<= 1) {
        upper += __shfl_xor_sync(~0u, upper, o);
        lower += __shfl_xor_sync(~0u, lower, o);
      }
      if (c == 0) {
        partial[buffer][pair][warp][g] = upper;
        partial[buffer][pair][warp][8 + g] = lower;
      }
    }
    // one barrier a turn: a buffer is written again only after the next one, which the warp that
    // reads it now passes only when it has read
    __syncthreads();
    if (warp == turn % WARPS) {
      const int row = lane & 15, side = lane >> 4;
      float sum = 0.f;
#ifdef GATED
#pragma unroll
      for (int w = 0; w < WARPS; w++) sum += partial[buffer][side][w][row];
      sum *= grow;
      if (bias) sum += widen(bias[(unit * 2 + side) * 16 + row]);
      float up = __shfl_down_sync(~0u, sum, 16);
      if (side == 0) y[unit * 16 + row] = narrow(silu(sum) * up);
#else
      for (int w = side; w < WARPS; w += 2) sum += partial[buffer][0][w][row];
      sum += __shfl_down_sync(~0u, sum, 16);
      sum *= grow;
      const int n = unit * 16 + row;
      bool writes = side == 0;
#if PARTS > 1
      if (side == 0) __stcg(sums + (size_t)part * rows + n, sum);
      __threadfence();
      __syncwarp();
      u32 arrived = 0;
      if (lane == 0) arrived = atomicAdd(counters + unit, 1u);
      arrived = __shfl_sync(~0u, arrived, 0);
      writes = writes && arrived == PARTS - 1;
      if (arrived == PARTS - 1) {
        __threadfence();
        if (lane == 0) counters[unit] = 0;
        sum = 0.f;
        if (side == 0)
#pragma unroll
          for (int p = 0; p < PARTS; p++) sum += __ldcg(sums + (size_t)p * rows + n);
      }
#endif
      if (writes) {
        if (bias) sum += widen(bias[n]);
        if (residual) sum += widen(residual[n]);
        y[n] = narrow(sum);
      }
#endif
    }
  }
}
#endif

#ifdef ONLY_four_bit_matrix
// Up to 8 * TOKENS rows of activations, on tensor cores. A block takes TILES * ROW_WARPS row tiles
// and one of gridDim.y parts of k; K_WARPS warps take the k-tiles of that part in turns, each TILES
// row tiles, so that activations are read once for many rows. A scale belongs to a tile's row: its
// steps are summed unscaled, then scaled into the total. With several parts each one's sums go to
// `sums` [gridDim.y, count, rows], and the block that comes last adds them up, in order.
extern "C" __global__ void __launch_bounds__(ROW_WARPS * K_WARPS * 32)
four_bit_matrix(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
                const float* __restrict__ code, const u16* x, const u16* __restrict__ bias,
                const u16* residual, u16* y, float* sums, u32* counters,
                int rows, int columns, int count) {
  extern __shared__ uint4 shared[];
  u32* table = (u32*)shared;
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int row_warp = warp % ROW_WARPS, k_warp = warp / ROW_WARPS;
  const int k_tiles = columns >> 6, tiles = rows >> 4;
  const int block_tile = blockIdx.x * TILES * ROW_WARPS, tile0 = block_tile + row_warp * TILES;
  const int per = (k_tiles + gridDim.y - 1) / gridDim.y;
  const int begin = blockIdx.y * per, end = min(begin + per, k_tiles);

  uint4 next[AHEAD][TILES];
  float2 scale[AHEAD][TILES][GROUPS];
#ifdef OFFSETS
  float2 offset[AHEAD][TILES][GROUPS];
#endif
  auto fetch = [&](int slot, int k) {
#pragma unroll
    for (int r = 0; r < TILES; r++)
      if (k < end && tile0 + r < tiles) {
        size_t at = (size_t)(tile0 + r) * k_tiles + k;
        next[slot][r] = stream_in(weights + at * WARP + lane);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          scale[slot][r][i] = stream_in(scales + (at * GROUPS + i) * 8 + g);
#ifdef OFFSETS
          offset[slot][r][i] = stream_in(offsets + (at * GROUPS + i) * 8 + g);
#endif
        }
      }
  };
#pragma unroll
  for (int slot = 0; slot < AHEAD; slot++) fetch(slot, begin + k_warp + slot * K_WARPS);
  fill_table<false>(table, code);
  let_next_start();
  __syncthreads();
  wait_for_input();

  float total[TILES][TOKENS][4];
#pragma unroll
  for (int r = 0; r < TILES; r++)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) total[r][n][i] = 0.f;

  const u32* mine = table + lane;
  for (int k0 = begin + k_warp; k0 < end; k0 += K_WARPS * AHEAD) {
#pragma unroll
    for (int slot = 0; slot < AHEAD; slot++) {
      const int k = k0 + slot * K_WARPS;
      if (k >= end) break;
      u32 input[TOKENS][8];
#pragma unroll
      for (int n = 0; n < TOKENS; n++) {
        int token = n * 8 + g;
        const u16* at = x + (size_t)token * columns + k * 64 + c * 8;
        uint4 v0 = make_uint4(0, 0, 0, 0), v1 = v0;
        if (token < count) {
          v0 = *(const uint4*)at;
          v1 = *(const uint4*)(at + 32);
        }
        input[n][0] = v0.x, input[n][1] = v0.y, input[n][2] = v0.z, input[n][3] = v0.w;
        input[n][4] = v1.x, input[n][5] = v1.y, input[n][6] = v1.z, input[n][7] = v1.w;
      }
      uint4 held[TILES];
      float2 s[TILES][GROUPS];
#ifdef OFFSETS
      float2 shift[TILES][GROUPS];
#endif
#pragma unroll
      for (int r = 0; r < TILES; r++) {
        held[r] = next[slot][r];
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          s[r][i] = scale[slot][r][i];
#ifdef OFFSETS
          shift[r][i] = offset[slot][r][i];
#endif
        }
      }
      fetch(slot, k + K_WARPS * AHEAD);
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
#ifdef OFFSETS
        // with rows of ones the tensor cores add up activations, in the layout of the sums
#ifdef BF16
        const u32 ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
#else
        const u32 ones[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
#endif
        float added[TOKENS][4];
#pragma unroll
        for (int n = 0; n < TOKENS; n++) {
          added[n][0] = added[n][1] = added[n][2] = added[n][3] = 0.f;
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++)
            mma(added[n], ones, input[n][2 * step], input[n][2 * step + 1]);
        }
#endif
#pragma unroll
        for (int r = 0; r < TILES; r++) {
          float part[TOKENS][4];
#pragma unroll
          for (int n = 0; n < TOKENS; n++) part[n][0] = part[n][1] = part[n][2] = part[n][3] = 0.f;
          const u32 bytes[4] = {held[r].x, held[r].y, held[r].z, held[r].w};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++) {
            u32 q = bytes[step];
            const u32 a[4] = {mine[(q & 255) * 32], mine[((q >> 8) & 255) * 32],
                              mine[((q >> 16) & 255) * 32], mine[(q >> 24) * 32]};
#pragma unroll
            for (int n = 0; n < TOKENS; n++) mma(part[n], a, input[n][2 * step], input[n][2 * step + 1]);
          }
#pragma unroll
          for (int n = 0; n < TOKENS; n++) {
            total[r][n][0] += part[n][0] * s[r][i].x;
            total[r][n][1] += part[n][1] * s[r][i].x;
            total[r][n][2] += part[n][2] * s[r][i].y;
            total[r][n][3] += part[n][3] * s[r][i].y;
#ifdef OFFSETS
            total[r][n][0] -= added[n][0] * shift[r][i].x;
            total[r][n][1] -= added[n][1] * shift[r][i].x;
            total[r][n][2] -= added[n][2] * shift[r][i].y;
            total[r][n][3] -= added[n][3] * shift[r][i].y;
#endif
          }
        }
      }
    }
  }

  // the warps' sums, one row tile of each at a time, through the table's place
  constexpr int SPAN = TOKENS * 128, THREADS = ROW_WARPS * K_WARPS * 32;
  constexpr int MINE = (ROW_WARPS * SPAN + THREADS - 1) / THREADS;
  float* share = (float*)table;
#ifdef GATED
  float gate[MINE];
#endif
#pragma unroll
  for (int r = 0; r < TILES; r++) {
    __syncthreads();
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        share[((k_warp * ROW_WARPS + row_warp) * TOKENS * 4 + n * 4 + i) * 32 + lane] = total[r][n][i];
    __syncthreads();
#pragma unroll
    for (int m = 0; m < MINE; m++) {
      int at = threadIdx.x + m * THREADS;
      if (at >= ROW_WARPS * SPAN) break;
      float sum = 0.f;
#pragma unroll
      for (int w = 0; w < K_WARPS; w++) sum += share[w * ROW_WARPS * SPAN + at];
      int l = at & 31, i = (at >> 5) & 3, n = (at >> 7) % TOKENS, tile = block_tile + (at / SPAN) * TILES + r;
      int row = tile * 16 + (l >> 2) + ((i & 2) ? 8 : 0), token = n * 8 + (l & 3) * 2 + (i & 1);
      bool inside = tile < tiles && token < count;
      if (gridDim.y > 1) {
        if (inside) __stcg(sums + ((size_t)blockIdx.y * count + token) * rows + row, sum);
        continue;
      }
      if (bias && inside) sum += widen(bias[row]);
#ifdef GATED
      if (r & 1) {
        if (inside) y[(size_t)token * (rows >> 1) + (tile >> 1) * 16 + (row & 15)] = narrow(silu(gate[m]) * sum);
      } else
        gate[m] = sum;
#else
      if (inside) {
        if (residual) sum += widen(residual[(size_t)token * rows + row]);
        y[(size_t)token * rows + row] = narrow(sum);
      }
#endif
    }
  }
#ifndef GATED
  if (gridDim.y > 1 && last_to_arrive(counters + blockIdx.x, gridDim.y)) {
    const int from = block_tile * 16, wide = min(TILES * ROW_WARPS * 16, rows - from);
    for (int at = threadIdx.x; at < wide * count; at += THREADS) {
      int token = at / wide, row = from + at % wide;
      float sum = bias ? widen(bias[row]) : 0.f;
      for (int p = 0; p < gridDim.y; p++) sum += __ldcg(sums + ((size_t)p * count + token) * rows + row);
      if (residual) sum += widen(residual[(size_t)token * rows + row]);
      y[(size_t)token * rows + row] = narrow(sum);
    }
  }
#endif
}
#endif

#ifdef ONLY_four_bit_expand
// The weights themselves, [rows, columns]: a warp writes one tile.
extern "C" __global__ void four_bit_expand(const uint4* __restrict__ weights, const float2* __restrict__ scales,
                                           const float2* __restrict__ offsets, const float* __restrict__ code,
                                           u16* __restrict__ y, int rows, int columns) {
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = code[threadIdx.x];
  __syncthreads();
  wait_for_input();
  const u32 lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6;
  size_t tile = (size_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (tile >= (size_t)(rows >> 4) * k_tiles) return;
  int row = (int)(tile / k_tiles) * 16 + g, column = (int)(tile % k_tiles) * 64 + c * 8;
  uint4 held = weights[tile * WARP + lane];
  const u32 bytes[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
  for (int half = 0; half < 2; half++) {
    size_t group = (tile * GROUPS + (GROUPS == 2 ? half : 0)) * 8 + g;
    float2 scale = scales[group], offset = offsets ? offsets[group] : make_float2(0.f, 0.f);
#pragma unroll
    for (int high = 0; high < 2; high++) {
      float s = high ? scale.y : scale.x, o = high ? offset.y : offset.x;
      u32 to[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        u32 byte = (bytes[half * 2 + (i >> 1)] >> (8 * (2 * (i & 1) + high))) & 255;
        to[i] = pack(values[byte >> 4] * s - o, values[byte & 15] * s - o);
      }
      *(uint4*)(y + (size_t)(row + 8 * high) * columns + column + half * 32) = make_uint4(to[0], to[1], to[2], to[3]);
    }
  }
}
#endif
