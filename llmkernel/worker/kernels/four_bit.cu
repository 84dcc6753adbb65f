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
// After it come weights and scales on their way.
#define STAGES_AT (TABLE_AT + 256 * 256)
#ifdef OFFSETS
#define TABLES 2  // scales, and offsets
#else
#define TABLES 1
#endif
// Bytes of a tile's scales and offsets.
#define SCALE_BYTES (GROUPS * 64)
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
// wait for the kernel that writes them.

// Copies 16 bytes from memory to shared memory at `to`, some time before the group that it belongs
// to is waited for; zeros where it is not `there`.
__device__ __forceinline__ void copy_in(u32 to, const void* from, bool there = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}

__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the last LEFT groups of this thread are there.
template <int LEFT>
__device__ __forceinline__ void wait_for_groups() { asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory"); }

__device__ __forceinline__ uint4 shared_words(u32 at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at) : "memory");
  return v;
}

__device__ __forceinline__ uint2 shared_pair(u32 at) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at) : "memory");
  return v;
}

__device__ __forceinline__ float2 shared_floats(u32 at) {
  uint2 v = shared_pair(at);
  return make_float2(__uint_as_float(v.x), __uint_as_float(v.y));
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
// registers and multiplies one row tile after the other with them; the weights of AHEAD of those are
// on their way to shared memory meanwhile, each lane's own. The warps of a block are side by side
// along k, the PARTS of k are blocks. A scale belongs to a tile's row: steps are summed unscaled,
// then scaled into the total. With several parts each one's sums go to `sums` [PARTS, count, rows],
// and the block that comes last adds them up, in order.
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

  // row tile `turn` of this block goes to place turn % AHEAD
  const int first_unit = blockIdx.x / PARTS;
  const u32 mine = STAGES_AT + warp * AHEAD * TILES * (512 + TABLES * SCALE_BYTES);
  auto row_tile_of = [&](int turn) {
    return PAIRED == 1 ? first_unit + turn * stride : (first_unit + (turn >> 1) * stride) * 2 + (turn & 1);
  };
  auto stage_of = [&](int turn) { return mine + (turn % AHEAD) * TILES * (512 + TABLES * SCALE_BYTES); };
  auto fetch = [&](int turn) {
    const int row_tile = row_tile_of(turn);
    if (row_tile < units * PAIRED) {
      const size_t at = (size_t)row_tile * k_tiles + k0;
      const u32 stage = stage_of(turn);
#pragma unroll
      for (int slot = 0; slot < TILES; slot++)
        if (k0 + slot * WARPS < end)
          copy_in(stage + slot * 512 + lane * 16, weights + (at + slot * WARPS) * WARP + lane);
#pragma unroll
      for (int i = lane; i < TILES * GROUPS * 4; i += 32) {
        const int slot = i / (GROUPS * 4), piece = i % (GROUPS * 4);
        if (k0 + slot * WARPS < end) {
          const size_t from = (at + slot * WARPS) * GROUPS * 8 + piece * 2;
          copy_in(stage + TILES * 512 + i * 16, scales + from);
#ifdef OFFSETS
          copy_in(stage + TILES * (512 + SCALE_BYTES) + i * 16, offsets + from);
#endif
        }
      }
    }
    end_group();
  };
#pragma unroll
  for (int turn = 0; turn < AHEAD; turn++) fetch(turn);
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

  int unit = first_unit;
  for (int turn = 0; unit < units; unit += stride, turn++) {
    const int buffer = turn & 1;
#pragma unroll
    for (int pair = 0; pair < PAIRED; pair++) {
      const int tile_turn = turn * PAIRED + pair;
      const u32 stage = stage_of(tile_turn);
      wait_for_groups<AHEAD - 1>();
      __syncwarp();
      uint4 held[TILES];
      float2 scale[TILES][GROUPS];
#ifdef OFFSETS
      float2 offset[TILES][GROUPS];
#endif
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        held[slot] = shared_words(stage + slot * 512 + lane * 16);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          scale[slot][i] = shared_floats(stage + TILES * 512 + (slot * GROUPS + i) * 64 + g * 8);
#ifdef OFFSETS
          offset[slot][i] = shared_floats(stage + TILES * (512 + SCALE_BYTES) + (slot * GROUPS + i) * 64 + g * 8);
#endif
        }
      }
      __syncwarp();
      fetch(tile_turn + AHEAD);
      float total[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        // what lies in the place of a tile beyond the end may be anything, also no number
        if (k0 + slot * WARPS >= end) break;
        const u32 words[4] = {held[slot].x, held[slot].y, held[slot].z, held[slot].w};
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          float sum[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++) {
            const u32 a[4] = {pair_of<0>(words[step], lane_at), pair_of<1>(words[step], lane_at),
                              pair_of<2>(words[step], lane_at), pair_of<3>(words[step], lane_at)};
            mma(sum, a, input[slot][2 * step], input[slot][2 * step + 1]);
          }
          total[0] += sum[0] * scale[slot][i].x;
          total[1] += sum[1] * scale[slot][i].x;
          total[2] += sum[2] * scale[slot][i].y;
          total[3] += sum[3] * scale[slot][i].y;
#ifdef OFFSETS
          float added[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++)
            add_up(added, input[slot][2 * step], input[slot][2 * step + 1]);
          total[0] -= added[0] * offset[slot][i].x;
          total[1] -= added[1] * offset[slot][i].x;
          total[2] -= added[2] * offset[slot][i].y;
          total[3] -= added[3] * offset[slot][i].y;
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
// Up to 8 * TOKENS rows of activations, on tensor cores. A block takes WARPS * TILES row tiles, each
// warp TILES of them, and one of gridDim.y parts of k. Weights, scales and the activations, which all
// warps share, go through AHEAD places in shared memory, one k-tile each. Sums are scaled as in
// four_bit_few; with several parts each one's go to `sums` [gridDim.y, count, rows], and the block
// that comes last adds them up, in order.
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
four_bit_many(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
              const float* __restrict__ code, const u16* x, const u16* __restrict__ bias, const u16* residual, u16* y,
              float* sums, u32* counters, int rows, int columns, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6, tiles = rows >> 4;
  const int block_tile = blockIdx.x * TILES * WARPS, tile0 = block_tile + warp * TILES;
  const int per = (k_tiles + gridDim.y - 1) / gridDim.y;
  const int begin = blockIdx.y * per, end = min(begin + per, k_tiles);
  constexpr u32 INPUT_BYTES = TOKENS * 1024, TILE_BYTES = 512 + TABLES * SCALE_BYTES;
  constexpr u32 STAGE = INPUT_BYTES + WARPS * TILES * TILE_BYTES;
  const u32 mine = STAGES_AT + INPUT_BYTES + warp * TILES * TILE_BYTES;

  auto fetch_weights = [&](int k) {
    const u32 stage = mine + ((k - begin) % AHEAD) * STAGE;
    if (k < end) {
#pragma unroll
      for (int r = 0; r < TILES; r++)
        if (tile0 + r < tiles)
          copy_in(stage + r * 512 + lane * 16, weights + ((size_t)(tile0 + r) * k_tiles + k) * WARP + lane);
#pragma unroll
      for (int i = lane; i < TILES * GROUPS * 4; i += 32) {
        const int r = i / (GROUPS * 4), piece = i % (GROUPS * 4);
        if (tile0 + r < tiles) {
          const size_t from = ((size_t)(tile0 + r) * k_tiles + k) * GROUPS * 8 + piece * 2;
          copy_in(stage + TILES * 512 + i * 16, scales + from);
#ifdef OFFSETS
          copy_in(stage + TILES * (512 + SCALE_BYTES) + i * 16, offsets + from);
#endif
        }
      }
    }
  };
  // A token's 64 columns are 128 bytes; halves of odd tokens change places, so that the lanes that
  // read together hit all banks.
  auto fetch_input = [&](int k) {
    const u32 stage = STAGES_AT + ((k - begin) % AHEAD) * STAGE;
    if (k < end)
      for (int i = threadIdx.x; i < TOKENS * 64; i += WARPS * 32) {
        const int token = i >> 3, piece = i & 7;
        const bool there = token < count;
        copy_in(stage + token * 128 + ((piece ^ ((token & 1) << 2)) << 4),
                x + (size_t)(there ? token : 0) * columns + k * 64 + piece * 8, there);
      }
  };
#pragma unroll
  for (int i = 0; i < AHEAD - 1; i++) fetch_weights(begin + i);
  let_next_start();
  fill_table(code);
  wait_for_input();
#pragma unroll
  for (int i = 0; i < AHEAD - 1; i++) {
    fetch_input(begin + i);
    end_group();  // the first one has the weights of all
  }

  float total[TILES][TOKENS][4];
#pragma unroll
  for (int r = 0; r < TILES; r++)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) total[r][n][i] = 0.f;
  __syncthreads();
  const u32 lane_at = lane_address();

  for (int k = begin; k < end; k++) {
    wait_for_groups<AHEAD - 2>();
    __syncthreads();  // what others have copied is there, and the place before is read by all
    fetch_weights(k + AHEAD - 1);
    fetch_input(k + AHEAD - 1);
    end_group();
    const u32 place = ((k - begin) % AHEAD) * STAGE, stage = mine + place;
    const u32 input = STAGES_AT + place + g * 128 + (((g & 1) << 6) ^ (c << 4));
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
      u32 b[TOKENS][4 / GROUPS][2];
#pragma unroll
      for (int n = 0; n < TOKENS; n++)
#pragma unroll
        for (int step = 0; step < 4 / GROUPS; step += 2) {
          const int half = i + step / 2;
          uint4 v = shared_words((input + n * 1024) ^ (half << 6));
          b[n][step][0] = v.x, b[n][step][1] = v.y, b[n][step + 1][0] = v.z, b[n][step + 1][1] = v.w;
        }
#ifdef OFFSETS
      float added[TOKENS][4];
#pragma unroll
      for (int n = 0; n < TOKENS; n++) {
        added[n][0] = added[n][1] = added[n][2] = added[n][3] = 0.f;
#pragma unroll
        for (int step = 0; step < 4 / GROUPS; step++) add_up(added[n], b[n][step][0], b[n][step][1]);
      }
#endif
#pragma unroll
      for (int r = 0; r < TILES; r++) {
        float part[TOKENS][4];
#pragma unroll
        for (int n = 0; n < TOKENS; n++) part[n][0] = part[n][1] = part[n][2] = part[n][3] = 0.f;
        const uint4 held = shared_words(stage + r * 512 + lane * 16);
        const u32 words[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
        for (int step = 0; step < 4 / GROUPS; step++) {
          const u32 word = words[i * 4 / GROUPS + step];
          const u32 a[4] = {pair_of<0>(word, lane_at), pair_of<1>(word, lane_at), pair_of<2>(word, lane_at),
                            pair_of<3>(word, lane_at)};
#pragma unroll
          for (int n = 0; n < TOKENS; n++) mma(part[n], a, b[n][step][0], b[n][step][1]);
        }
        const float2 scale = shared_floats(stage + TILES * 512 + (r * GROUPS + i) * 64 + g * 8);
#ifdef OFFSETS
        const float2 offset = shared_floats(stage + TILES * (512 + SCALE_BYTES) + (r * GROUPS + i) * 64 + g * 8);
#endif
#pragma unroll
        for (int n = 0; n < TOKENS; n++) {
          total[r][n][0] += part[n][0] * scale.x;
          total[r][n][1] += part[n][1] * scale.x;
          total[r][n][2] += part[n][2] * scale.y;
          total[r][n][3] += part[n][3] * scale.y;
#ifdef OFFSETS
          total[r][n][0] -= added[n][0] * offset.x;
          total[r][n][1] -= added[n][1] * offset.x;
          total[r][n][2] -= added[n][2] * offset.y;
          total[r][n][3] -= added[n][3] * offset.y;
#endif
        }
      }
    }
  }

#pragma unroll
  for (int r = 0; r < TILES; r += PAIRED) {
    if (tile0 + r >= tiles) break;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = (tile0 + r) * 16 + g + (i & 2) * 4;
      const float add = bias && gridDim.y == 1 ? widen(bias[row]) : 0.f;
#ifdef GATED
      const float add_up = bias ? widen(bias[row + 16]) : 0.f;
#endif
#pragma unroll
      for (int n = 0; n < TOKENS; n++) {
        const int token = n * 8 + c * 2 + (i & 1);
        if (token >= count) continue;
        float value = total[r][n][i] + add;
#ifdef GATED
        y[(size_t)token * (rows >> 1) + ((tile0 + r) >> 1) * 16 + (row & 15)] = narrow(silu(value) * (total[r + 1][n][i] + add_up));
#else
        const size_t at = (size_t)token * rows + row;
        if (gridDim.y > 1)
          __stcg(sums + (size_t)blockIdx.y * count * rows + at, value);
        else {
          if (residual) value += widen(residual[at]);
          y[at] = narrow(value);
        }
#endif
      }
    }
  }
#ifndef GATED
  if (gridDim.y > 1 && last_to_arrive(counters + blockIdx.x, gridDim.y)) {
    const int from = block_tile * 16, wide = min(TILES * WARPS * 16, rows - from);
    for (int at = threadIdx.x; at < wide * count; at += WARPS * 32) {
      const int token = at / wide, row = from + at % wide;
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
