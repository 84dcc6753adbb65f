#include "four_bit_few.cuh"

// Up to 8 rows of activations, on tensor cores. A warp keeps the activations of its TILES k-tiles in
// registers and multiplies one row tile after the other with them, whose weights are fetched AHEAD
// k-tiles early; the warps of a block are side by side along k, the PARTS of k are blocks. With several
// parts each one's sums go to `sums` [PARTS, count, rows]; of the blocks of the same row tiles the one that
// is done last adds them up, in order.
// NORM: x becomes x * rsqrt(mean(x^2) + eps) * norm first; then PARTS is 1.
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
four_bit_few(const uint4* __restrict__ weights, const u32* __restrict__ scales, const float2* __restrict__ offsets,
             const __grid_constant__ Code code, const u16* x, const u16* __restrict__ norm, float eps,
             const u16* __restrict__ bias, const u16* residual, u16* y, float* sums, u32* counters,
             int rows, int columns, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2;
  const int k_tiles = columns >> 6, units = (rows >> 4) / PAIRED;
  const int part = blockIdx.x % PARTS, stride = gridDim.x / PARTS;
  const int per = (k_tiles + PARTS - 1) / PARTS, first = part * per, end = min(first + per, k_tiles);
  const int k0 = first + warp;

  uint4 next[AHEAD];
  u32 scale[AHEAD][GROUPS];
#ifdef OFFSETS
  float2 offset[AHEAD][GROUPS];
#endif
  // `ahead` of slot 0 of the row tile at `w` and `s`; slots beyond the end keep what they have
  const uint4* w = weights;
  const u32* s = scales;
#ifdef OFFSETS
  const float2* o = offsets;
#endif
  auto fetch = [&](int ring, int slot) {
    if (k0 + slot * WARPS < end) {
      next[ring] = stream_once(w + slot * WARPS * WARP);
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        scale[ring][i] = stream_once(s + (slot * WARPS * GROUPS + i) * 8);
#ifdef OFFSETS
        offset[ring][i] = stream_once(o + (slot * WARPS * GROUPS + i) * 8);
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
      scale[ring][i] = 0;
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

  auto tile_of = [&](int slot) { return k0 + slot * WARPS < end ? k0 + slot * WARPS : -1; };
  u32 input[TILES][8];
  load_input(input, x, norm, eps, columns, count, tile_of);
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
        u32 by[GROUPS];
        float2 shift[GROUPS];
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
        multiply_tile(total, words, input[slot], by, shift, lane_at);
      }
      store_shared(partial_at(buffer * PAIRED + pair, warp, lane * 4), total);
    }
    // one barrier a turn: a buffer is written again only after the next one, which the warps that
    // read it now pass only when they have read
    __syncthreads();
    const int reader = threadIdx.x - (turn % (WARPS / 4)) * 128;
    float* const of_part = PARTS > 1 ? sums + (size_t)part * rows * count : nullptr;
    if (reader >= 0 && reader < 128)
      add_up_warps(buffer * PAIRED, unit, reader, rows, count, bias, residual, y, of_part);
  }
#if PARTS > 1
  add_up_parts(blockIdx.x / PARTS, stride, sums, counters, rows, count, bias, residual, y);
#endif
}
