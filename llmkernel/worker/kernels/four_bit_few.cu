#include "four_bit.cuh"

// Row tiles (pairs) whose sums there is room for, and after how many turns they are added up.
#define ROOM (4 / PAIRED)
#define LAG 1

// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

// Up to 8 rows of activations, on tensor cores. A warp keeps the activations of its TILES k-tiles in
// registers and multiplies one row tile after the other with them, whose weights are fetched AHEAD
// k-tiles early; the warps of a block are side by side along k, the PARTS of k are blocks. A scale
// belongs to a tile's row: steps are summed unscaled, then scaled into the total. Four warps in turns add
// up the sums of all warps, LAG turns later, so that no warp waits for the slowest. With several parts
// each one's sums go to `sums` [PARTS, count, rows]; of the blocks of the same row tiles the one that
// is done last adds them up, in order.
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

  __shared__ unsigned long long written[ROOM], read[ROOM];
  const u32 written_at = shared_address(written), read_at = shared_address(read);
  if (threadIdx.x < ROOM) {
    make_barrier(written_at + threadIdx.x * 8, WARPS);
    make_barrier(read_at + threadIdx.x * 8, 4);
  }

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

  // Adds up what the warps have of a turn.
  auto add_up_turn = [&](int turn, int unit) {
    if (warp / 4 != turn % (WARPS / 4)) return;
    const int buffer = turn % ROOM;
    wait_at(written_at + buffer * 8, turn / ROOM & 1);
    const int reader = threadIdx.x % 128;
    const int i = reader & 3, token = (reader >> 2 & 3) * 2 + (i & 1), row = (reader >> 4) + (i & 2) * 4;
    if (token < count) {
      float sum[PAIRED];
#pragma unroll
      for (int pair = 0; pair < PAIRED; pair++) {
        sum[pair] = 0.f;
#pragma unroll
        for (int v = 0; v < WARPS; v++) sum[pair] += load_shared_float(partial_at(buffer * PAIRED + pair, v, reader));
      }
#ifdef GATED
      if (bias) {
        sum[0] += widen(bias[unit * 32 + row]);
        sum[1] += widen(bias[unit * 32 + 16 + row]);
      }
      y[(size_t)token * (rows >> 1) + unit * 16 + row] = narrow(silu(sum[0]) * sum[1]);
#else
      const size_t at = (size_t)token * rows + unit * 16 + row;
      float value = sum[0];
#if PARTS > 1
      __stcg(sums + (size_t)part * rows * count + at, value);
#else
      if (bias) value += widen(bias[unit * 16 + row]);
      if (residual) value += widen(residual[at]);
      y[at] = narrow(value);
#endif
#endif
    }
    __syncwarp();  // the room is free
    if (lane == 0) arrive(read_at + buffer * 8);
  };

  int turn = 0;
  for (; unit < units; unit += stride, turn++) {
    const int buffer = turn % ROOM;
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
      if (pair == 0 && turn >= ROOM) wait_at(read_at + buffer * 8, turn / ROOM - 1 & 1);
      store_shared(partial_at(buffer * PAIRED + pair, warp, lane * 4), total);
    }
    __syncwarp();
    if (lane == 0) arrive(written_at + buffer * 8);
    if (turn >= LAG) add_up_turn(turn - LAG, unit - LAG * stride);
  }
  for (int late = max(0, turn - LAG); late < turn; late++) add_up_turn(late, unit - (turn - late) * stride);
#if PARTS > 1
  // the blocks of the other parts have had the same row tiles
  if (last_to_arrive(counters + blockIdx.x / PARTS, PARTS)) {
    const int mine = (units - (int)blockIdx.x / PARTS + stride - 1) / stride;
    for (int i = threadIdx.x; i < mine * 16 * count; i += WARPS * 32) {
      const int token = (i >> 4) % count, row = ((int)blockIdx.x / PARTS + i / (16 * count) * stride) * 16 + (i & 15);
      const size_t at = (size_t)token * rows + row;
      float value = 0.f;
#pragma unroll
      for (int p = 0; p < PARTS; p++) value += __ldcg(sums + (size_t)p * rows * count + at);
      if (bias) value += widen(bias[row]);
      if (residual) value += widen(residual[at]);
      y[at] = narrow(value);
    }
  }
#endif
}
