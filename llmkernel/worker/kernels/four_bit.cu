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
// memory has a copy of its own, and no two lanes ever wait for each other. An entry's copies take the
// first half of 256 bytes, so that an address is made by one byte permutation: 4 * lane, then the byte.
//
// GATED: row tiles come in pairs, gate and up, and y is silu(gate) * up, half as wide.

#define WARP 32u
// Where the table begins in shared memory; what the compiler places lies before it.
#define TABLE_AT 4096
#ifdef GATED
#define PAIRED 2
#else
#define PAIRED 1
#endif

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
__device__ __forceinline__ void fill_table(const float* code) {
  for (u32 word = threadIdx.x; word < 256 * 8; word += blockDim.x) {
    u32 byte = word >> 3;
    u32 pair = pack(__ldg(code + (byte >> 4)), __ldg(code + (byte & 15)));
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};"
        :: "r"(TABLE_AT + byte * 256 + (word & 7) * 16), "r"(pair) : "memory");
  }
}

// What `pair_of` needs of a lane; only after the barrier that follows `fill_table`.
__device__ __forceinline__ u32 lane_address() {
  u32 address;
  asm volatile("mov.u32 %0, %1;" : "=r"(address) : "r"((threadIdx.x & 31) * 4) : "memory");
  return address;
}

// The two weights of byte BYTE of `word`.
template <int BYTE>
__device__ __forceinline__ u32 pair_of(u32 word, u32 lane_at) {
  u32 pair, address = __byte_perm(word, lane_at, 0x7704 | (BYTE << 4));
  asm("ld.shared.u32 %0, [%1 + %2];" : "=r"(pair) : "r"(address), "n"(TABLE_AT));
  return pair;
}

// Adds up 16 activations of each token: a product with rows of ones, in the layout of the sums.
__device__ __forceinline__ void add_up(float* d, u32 b0, u32 b1) {
#ifdef BF16
  const u32 one = 0x3f803f80u;
#else
  const u32 one = 0x3c003c00u;
#endif
  const u32 ones[4] = {one, one, one, one};
  mma(d, ones, b0, b1);
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

#ifdef ONLY_four_bit_few
// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

// Up to 8 rows of activations, on tensor cores. A warp keeps the activations of its TILES k-tiles in
// registers and multiplies one row tile after the other with them, whose weights are fetched AHEAD
// k-tiles early; the warps of a block are side by side along k, the PARTS of k are blocks. A scale
// belongs to a tile's row: steps are summed unscaled, then scaled into the total. With several parts
// each one's sums go to `sums` [PARTS, count, rows], and the block that comes last adds them up, in
// order.
// NORM: x becomes x * rsqrt(mean(x^2) + eps) * norm first; then PARTS is 1.
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
four_bit_few(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
             const float* __restrict__ code, const u16* x, const u16* __restrict__ norm, float eps,
             const u16* __restrict__ bias, const u16* residual, u16* y, float* sums, u32* counters,
             int rows, int columns, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6, units = (rows >> 4) / PAIRED;
  const int part = blockIdx.x % PARTS, stride = gridDim.x / PARTS;
  const int per = (k_tiles + PARTS - 1) / PARTS, first = part * per, end = min(first + per, k_tiles);
  const int k0 = first + warp;

  uint4 next[AHEAD];
  float2 scale[AHEAD][GROUPS];
#ifdef OFFSETS
  float2 offset[AHEAD][GROUPS];
#endif
  // `ahead` of slot 0 of the row tile at `w` and `s`; slots beyond the end keep what they have
  const uint4* w = weights;
  const float2* s = scales;
#ifdef OFFSETS
  const float2* o = offsets;
#endif
  auto fetch = [&](int ring, int slot) {
    if (k0 + slot * WARPS < end) {
      next[ring] = stream_in(w + slot * WARPS * WARP);
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        scale[ring][i] = stream_in(s + (slot * WARPS * GROUPS + i) * 8);
#ifdef OFFSETS
        offset[ring][i] = stream_in(o + (slot * WARPS * GROUPS + i) * 8);
#endif
      }
    }
  };
  auto go_to = [&](int row_tile) {
    size_t at = (size_t)row_tile * k_tiles + k0;
    w = weights + at * WARP + lane;
    s = scales + at * GROUPS * 8 + g;
#ifdef OFFSETS
    o = offsets + at * GROUPS * 8 + g;
#endif
  };
#pragma unroll
  for (int ring = 0; ring < AHEAD; ring++) {
    next[ring] = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
      scale[ring][i] = make_float2(0.f, 0.f);
#ifdef OFFSETS
      offset[ring][i] = make_float2(0.f, 0.f);
#endif
    }
  }
  int unit = blockIdx.x / PARTS;
  go_to(unit * PAIRED);
  if (unit < units)
#pragma unroll
    for (int slot = 0; slot < AHEAD; slot++) fetch(slot, slot);
  let_next_start();
  fill_table(code);
  wait_for_input();

  // activations of token g: columns 8 c to 8 c + 7 of both halves of each k-tile
  u32 input[TILES][8];
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    bool there = k0 + slot * WARPS < end && g < count;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = x + (size_t)g * columns + (k0 + slot * WARPS) * 64 + half * 32 + c * 8;
      uint4 v = there ? *(const uint4*)at : make_uint4(0, 0, 0, 0);
      u32* to = &input[slot][half * 4];
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
  }
#ifdef NORM
  __shared__ float warp_squares[WARPS][8];
  float squares = 0.f;
#pragma unroll
  for (int slot = 0; slot < TILES; slot++)
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float low = low_of(input[slot][j]), high = high_of(input[slot][j]);
      squares += low * low + high * high;
    }
#pragma unroll
  for (int i = 1; i < 4; i <<= 1) squares += __shfl_xor_sync(~0u, squares, i);
  if (c == 0) warp_squares[warp][g] = squares;
  __syncthreads();
  squares = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) squares += warp_squares[i][g];
  const float by = rsqrtf(squares / columns + eps);
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    bool there = k0 + slot * WARPS < end;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = norm + (k0 + slot * WARPS) * 64 + half * 32 + c * 8;
      uint4 v = there ? __ldg((const uint4*)at) : make_uint4(0, 0, 0, 0);
      const u32 factors[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u32& word = input[slot][half * 4 + j];
        word = pack(low_of(word) * by * low_of(factors[j]), high_of(word) * by * high_of(factors[j]));
      }
    }
  }
#endif
  __syncthreads();
  const u32 lane_at = lane_address();

  for (int turn = 0; unit < units; unit += stride, turn++) {
    const int buffer = turn & 1;
#pragma unroll
    for (int pair = 0; pair < PAIRED; pair++) {
      const int following = pair + 1 < PAIRED ? unit * PAIRED + pair + 1 : (unit + stride) * PAIRED;
      float total[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        const int ring = slot % AHEAD;
        const uint4 held = next[ring];
        float2 by[GROUPS];
#ifdef OFFSETS
        float2 shift[GROUPS];
#endif
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          by[i] = scale[ring][i];
#ifdef OFFSETS
          shift[i] = offset[ring][i];
#endif
        }
        if (slot == TILES - AHEAD) go_to(following);
        if (slot < TILES - AHEAD)
          fetch(ring, slot + AHEAD);
        else if (following < units * PAIRED)
          fetch(ring, slot + AHEAD - TILES);
        const u32 words[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          float sum[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++) {
            const u32 a[4] = {pair_of<0>(words[step], lane_at), pair_of<1>(words[step], lane_at),
                              pair_of<2>(words[step], lane_at), pair_of<3>(words[step], lane_at)};
            mma(sum, a, input[slot][2 * step], input[slot][2 * step + 1]);
          }
          total[0] += sum[0] * by[i].x;
          total[1] += sum[1] * by[i].x;
          total[2] += sum[2] * by[i].y;
          total[3] += sum[3] * by[i].y;
#ifdef OFFSETS
          float added[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++)
            add_up(added, input[slot][2 * step], input[slot][2 * step + 1]);
          total[0] -= added[0] * shift[i].x;
          total[1] -= added[1] * shift[i].x;
          total[2] -= added[2] * shift[i].y;
          total[3] -= added[3] * shift[i].y;
#endif
        }
      }
      asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};"
          :: "r"(partial_at(buffer * PAIRED + pair, warp, lane * 4)), "f"(total[0]), "f"(total[1]), "f"(total[2]), "f"(total[3])
          : "memory");
    }
    // one barrier a turn: a buffer is written again only after the next one, which the warps that
    // read it now pass only when they have read
    __syncthreads();
    const int reader = threadIdx.x - (turn % (WARPS / 4)) * 128;
    if (reader >= 0 && reader < 128) {
      const int i = reader & 3, token = (reader >> 2 & 3) * 2 + (i & 1), row = (reader >> 4) + (i & 2) * 4;
      float sum[PAIRED];
#pragma unroll
      for (int pair = 0; pair < PAIRED; pair++) {
        sum[pair] = 0.f;
#pragma unroll
        for (int v = 0; v < WARPS; v++) {
          float value;
          asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(partial_at(buffer * PAIRED + pair, v, reader)) : "memory");
          sum[pair] += value;
        }
      }
#ifdef GATED
      if (token < count) {
        if (bias) {
          sum[0] += widen(bias[unit * 32 + row]);
          sum[1] += widen(bias[unit * 32 + 16 + row]);
        }
        y[(size_t)token * (rows >> 1) + unit * 16 + row] = narrow(silu(sum[0]) * sum[1]);
      }
#else
      const size_t at = (size_t)token * rows + unit * 16 + row;
      float value = sum[0];
      bool writes = token < count;
#if PARTS > 1
      // the four warps of readers go through this together: what is counted is a unit's part
      if (writes) __stcg(sums + (size_t)part * rows * count + at, value);
      __threadfence();
      asm volatile("bar.sync %0, 128;" :: "r"(1 + turn % (WARPS / 4)) : "memory");
      __shared__ u32 arrived[WARPS / 4];
      if (reader == 0) arrived[turn % (WARPS / 4)] = atomicAdd(counters + unit, 1u);
      asm volatile("bar.sync %0, 128;" :: "r"(1 + turn % (WARPS / 4)) : "memory");
      const bool last = arrived[turn % (WARPS / 4)] == PARTS - 1;
      writes = writes && last;
      if (last) {
        __threadfence();
        if (reader == 0) counters[unit] = 0;
        value = 0.f;
        if (writes)
#pragma unroll
          for (int p = 0; p < PARTS; p++) value += __ldcg(sums + (size_t)p * rows * count + at);
      }
#endif
      if (writes) {
        if (bias) value += widen(bias[unit * 16 + row]);
        if (residual) value += widen(residual[at]);
        y[at] = narrow(value);
      }
#endif
    }
  }
}
#endif

#ifdef ONLY_four_bit_many
// Up to 8 * TOKENS rows of activations, on tensor cores. A block takes TILES * ROW_WARPS row tiles
// and one of gridDim.y parts of k; K_WARPS warps take the k-tiles of that part in turns, each TILES
// row tiles, so that activations are read once for many rows. A scale belongs to a tile's row: its
// steps are summed unscaled, then scaled into the total. With several parts each one's sums go to
// `sums` [gridDim.y, count, rows], and the block that comes last adds them up, in order.
extern "C" __global__ void __launch_bounds__(ROW_WARPS * K_WARPS * 32)
four_bit_many(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
                const float* __restrict__ code, const u16* x, const u16* __restrict__ bias,
                const u16* residual, u16* y, float* sums, u32* counters,
                int rows, int columns, int count) {
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
  let_next_start();
  fill_table(code);
  __syncthreads();
  wait_for_input();

  float total[TILES][TOKENS][4];
#pragma unroll
  for (int r = 0; r < TILES; r++)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) total[r][n][i] = 0.f;

  const u32 lane_at = lane_address();
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
        float added[TOKENS][4];
#pragma unroll
        for (int n = 0; n < TOKENS; n++) {
          added[n][0] = added[n][1] = added[n][2] = added[n][3] = 0.f;
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++)
            add_up(added[n], input[n][2 * step], input[n][2 * step + 1]);
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
            const u32 a[4] = {pair_of<0>(bytes[step], lane_at), pair_of<1>(bytes[step], lane_at),
                              pair_of<2>(bytes[step], lane_at), pair_of<3>(bytes[step], lane_at)};
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

  // the warps' sums, one row tile of each at a time, through the place of the table
  extern __shared__ float share[];
  constexpr int SPAN = TOKENS * 128, THREADS = ROW_WARPS * K_WARPS * 32;
  constexpr int MINE = (ROW_WARPS * SPAN + THREADS - 1) / THREADS;
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
