#include "four_bit.cuh"

// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

// Up to 8 rows of activations, on tensor cores. A warp keeps the activations of its TILES k-tiles, next to
// each other, in registers and multiplies one row tile after the other with them. It has a ring of STAGES
// places of its own in shared memory, each for its weights of one row tile, and fills a place again as soon
// as it has used it: so much has to be on its way all the time. The warps of a block are side by side along
// k, the PARTS of k are blocks. A scale belongs to a tile's row: steps are summed unscaled, then scaled into
// the total. With several parts each one's sums go to `sums` [PARTS, count, rows]; of the blocks of the same
// row tiles the one that is done last adds them up, in order.
// NORM: x becomes x * rsqrt(mean(x^2) + eps) * norm first; then PARTS is 1.
// A turn is DEEP row tiles, with GATED a pair.
#define DEEP 2
#define IN_TURN (DEEP / PAIRED)
#define K_TILES (COLUMNS / 64)
#define PER_PART ((K_TILES + PARTS - 1) / PARTS)
#define TILE_SCALES (GROUPS * 64)
#ifdef OFFSETS
#define PLACE_BYTES (TILES * (512 + 2 * TILE_SCALES))
#else
#define PLACE_BYTES (TILES * (512 + TILE_SCALES))
#endif
// Places that are filled before the input is there; the input would have to wait behind more.
#define EARLY (STAGES < 2 ? STAGES : 2)
#define RING_AT (TABLE_AT + 256 * 256)
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
four_bit_few(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
             const float* __restrict__ code, const u16* x, const u16* __restrict__ norm, float eps,
             const u16* __restrict__ bias, const u16* residual, u16* y, float* sums, u32* counters,
             int rows, int count, const __grid_constant__ Ahead ahead) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int units = (rows >> 4) / PAIRED;
  const int part = PARTS == 1 ? 0 : blockIdx.x % PARTS, group = blockIdx.x / PARTS, stride = gridDim.x / PARTS;
  const int mine = group < units ? (units - group + stride - 1) / stride : 0;
  const int k0 = part * PER_PART + warp * TILES, end = min((part + 1) * PER_PART, K_TILES);
  // k-tile `slot` of this warp is there; mostly that is known when this is compiled
  constexpr bool EXACT = PER_PART == WARPS * TILES && K_TILES % PARTS == 0;
  auto has = [&](int slot) { return EXACT || k0 + slot < end; };
  // what a slot has instead, times zero
  auto nearest = [&](int slot) { return EXACT ? slot : min(k0 + slot, end - 1) - k0; };

  const float code_value = code_of_lane(code);  // ahead of the weights, which it would wait behind

  // where the warp fetches from: row tiles `group`, `group + stride` and so on (gated: pairs), `left` of them
  const size_t tile0 = (size_t)(group * PAIRED) * K_TILES + k0;
  const uint4* w = weights + tile0 * WARP + lane;
  const int scale_lane = EXACT ? (int)lane : nearest(lane / (GROUPS * 4)) * (GROUPS * 4) + lane % (GROUPS * 4);
  const uint4* s = (const uint4*)(scales + tile0 * GROUPS * 8) + scale_lane;
#ifdef OFFSETS
  const uint4* o = (const uint4*)(offsets + tile0 * GROUPS * 8) + scale_lane;
#endif
  int left = mine * PAIRED;
  const u32 ring_at = RING_AT + warp * (STAGES * PLACE_BYTES);
  // `second`: of a pair
  auto fetch = [&](bool second, u32 to) {
    if (left > 0) {
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) begin_copy(to + slot * 512 + lane * 16, w + nearest(slot) * (int)WARP);
      if (lane < TILES * GROUPS * 4) {
        begin_copy(to + TILES * 512 + lane * 16, s);
#ifdef OFFSETS
        begin_copy(to + TILES * (512 + TILE_SCALES) + lane * 16, o);
#endif
      }
    }
    end_group();
    const int hop = (PAIRED == 1 ? stride : second ? 2 * stride - 1 : 1) * K_TILES;
    w += (size_t)hop * WARP;
    s += (size_t)hop * (GROUPS * 4);
#ifdef OFFSETS
    o += (size_t)hop * (GROUPS * 4);
#endif
    left--;
  };
  auto fill = [&](int from, int to) {
#pragma unroll
    for (int stage = from; stage < to; stage++) fetch(stage % 2 == 1, ring_at + stage * PLACE_BYTES);
  };
  fill(0, EARLY);
#ifdef NORM
  // brings the norm's weights near, before the input is there
  if (threadIdx.x * 8 < COLUMNS) look_at((const uint4*)norm + threadIdx.x);
#endif
  let_next_start();
  fill_table(code_value);
  wait_for_input();

  // activations of token g: columns 8 c to 8 c + 7 of both halves of each k-tile
  u32 input[TILES][8];
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    const bool there = has(slot) && g < count;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = x + (size_t)g * COLUMNS + (k0 + slot) * 64 + half * 32 + c * 8;
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
  fill(EARLY, STAGES);  // behind the input
  squares = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) squares += warp_squares[i][g];
  const float by = rsqrtf(squares / COLUMNS + eps);
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    const bool there = has(slot);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = norm + (k0 + slot) * 64 + half * 32 + c * 8;
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
#ifndef NORM
  fill(EARLY, STAGES);  // behind the input
#endif
  const u32 lane_at = lane_address();

  // Adds up what the warps have of a unit.
  auto add_up_unit = [&](int unit, int reader, int buffer) {
    const int i = reader & 3, token = (reader >> 2 & 3) * 2 + (i & 1), row = (reader >> 4) + (i & 2) * 4;
    if (token >= count) return;
    float sum[PAIRED];
#pragma unroll
    for (int pair = 0; pair < PAIRED; pair++) {
      sum[pair] = 0.f;
#pragma unroll
      for (int v = 0; v < WARPS; v++) sum[pair] += load_shared_float(partial_at(buffer + pair, v, reader));
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
  };

  u32 place = ring_at;
  bool brought = false;  // what the next kernels begin with, once all of this one is on its way
  for (int turn = 0; turn * IN_TURN < mine; turn++) {
    if (warp == 0 && left <= 0 && !brought) bring_near(ahead, lane), brought = true;
    const int buffer = turn % (4 / DEEP) * DEEP, unit = group + turn * IN_TURN * stride;
#pragma unroll
    for (int deep = 0; deep < DEEP; deep++) {
      if (PAIRED == 1 && turn * IN_TURN + deep >= mine) break;
      float total[4] = {0.f, 0.f, 0.f, 0.f};
      wait_for_groups<STAGES - 1>();
      __syncwarp();
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        u32 words[4];
        load_shared(words, place + slot * 512 + lane * 16);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          const u32 scale_at = place + TILES * 512 + (slot * GROUPS + i) * 64 + g * 8;
          const float2 by = load_shared_pair(scale_at);
          float sum[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++) {
            const u32 a[4] = {pair_of<0>(words[step], lane_at), pair_of<1>(words[step], lane_at),
                              pair_of<2>(words[step], lane_at), pair_of<3>(words[step], lane_at)};
            mma(sum, a, input[slot][2 * step], input[slot][2 * step + 1]);
          }
          total[0] += sum[0] * by.x;
          total[1] += sum[1] * by.x;
          total[2] += sum[2] * by.y;
          total[3] += sum[3] * by.y;
#ifdef OFFSETS
          const float2 shift = load_shared_pair(scale_at + TILES * TILE_SCALES);
          float added[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
          for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++)
            add_up(added, input[slot][2 * step], input[slot][2 * step + 1]);
          total[0] -= added[0] * shift.x;
          total[1] -= added[1] * shift.x;
          total[2] -= added[2] * shift.y;
          total[3] -= added[3] * shift.y;
#endif
        }
      }
      __syncwarp();  // the place is free
      fetch((deep + STAGES) % 2 == 1, place);
      place = place == ring_at + (STAGES - 1) * PLACE_BYTES ? ring_at : place + PLACE_BYTES;
      store_shared(partial_at(buffer + deep, warp, lane * 4), total);
    }
    // one barrier a turn: a buffer is written again only after the next one, which the warps that
    // read it now pass only when they have read
    __syncthreads();
#pragma unroll
    for (int i = 0; i < IN_TURN; i++) {
      const int reader = threadIdx.x - (turn * IN_TURN + i) % (WARPS / 4) * 128;
      if (reader >= 0 && reader < 128 && turn * IN_TURN + i < mine) add_up_unit(unit + i * stride, reader, buffer + i);
    }
  }
  wait_for_groups<0>();
  if (warp == 0 && !brought) bring_near(ahead, lane);
#if PARTS > 1
  // the blocks of the other parts have had the same row tiles
  if (last_to_arrive(counters + group, PARTS)) {
    for (int i = threadIdx.x; i < mine * 16 * count; i += WARPS * 32) {
      const int token = (i >> 4) % count, row = (group + i / (16 * count) * stride) * 16 + (i & 15);
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
