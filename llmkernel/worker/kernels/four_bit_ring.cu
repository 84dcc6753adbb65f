#include "four_bit_few.cuh"

// Up to 8 rows of activations, on tensor cores. A warp keeps the activations of its TILES k-tiles, next to
// each other, in registers and multiplies one row tile after the other with them. It has a ring of STAGES
// places of its own in shared memory, each for its weights of one row tile, and fills a place again as soon
// as it has used it: more is on its way than registers could hold. The warps of a block are side by side
// along k; the PARTS of k are blocks, whose sums are added up as those of `four_bit_few` are.
// NORM: x becomes x * rsqrt(mean(x^2) + eps) * norm first; then PARTS is 1, as with GATED.
// A turn is two row tiles, with GATED a pair. COLUMNS is known, so that most k-tiles are known to be there.
#define IN_TURN (2 / PAIRED)
#define K_TILES (COLUMNS / 64)
#define OF_PART ((K_TILES + PARTS - 1) / PARTS)
#define TILE_SCALES (GROUPS * 32)
#ifdef OFFSETS
#define PLACE_BYTES (TILES * (512 + TILE_SCALES + GROUPS * 64))
#else
#define PLACE_BYTES (TILES * (512 + TILE_SCALES))
#endif
#define RING_AT (TABLE_AT + 256 * 256)
extern "C" __global__ void __launch_bounds__(WARPS * 32, 1)
four_bit_ring(const uint4* __restrict__ weights, const u32* __restrict__ scales, const float2* __restrict__ offsets,
              const __grid_constant__ Code code, const u16* x, const u16* __restrict__ norm, float eps,
              const u16* __restrict__ bias, const u16* residual, u16* y, float* sums, u32* counters, int rows,
              int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2;
  const int units = (rows >> 4) / PAIRED;
  const int part = blockIdx.x % PARTS, group = blockIdx.x / PARTS, stride = gridDim.x / PARTS;
  const int mine = group < units ? (units - group + stride - 1) / stride : 0;
  const int k0 = part * OF_PART + warp * TILES, end = min((part + 1) * OF_PART, K_TILES);
  // k-tile `slot` of this warp is there; mostly that is known when this is compiled
  constexpr bool EXACT = K_TILES == PARTS * WARPS * TILES;
  auto has = [&](int slot) { return EXACT || k0 + slot < end; };
  // what a slot has instead, times zero
  auto nearest = [&](int slot) { return EXACT ? slot : min(k0 + slot, end - 1) - k0; };

  // where the warp fetches from: row tiles `group`, `group + stride` and so on (gated: pairs), `left` of them
  const size_t tile0 = (size_t)(group * PAIRED) * K_TILES + k0;
  const uint4* w = weights + tile0 * WARP + lane;
  // which 16 bytes a lane brings of the slots' scales or offsets, `each` to a slot
  auto lane_of = [&](int each) { return EXACT ? (int)lane : nearest(lane / each) * each + (int)lane % each; };
  const uint4* s = (const uint4*)(scales + tile0 * GROUPS * 8) + lane_of(GROUPS * 2);
#ifdef OFFSETS
  const uint4* o = (const uint4*)(offsets + tile0 * GROUPS * 8) + lane_of(GROUPS * 4);
#endif
  int left = mine * PAIRED;
  const u32 ring_at = RING_AT + warp * (STAGES * PLACE_BYTES);
  // `second`: of a pair
  auto fetch = [&](bool second, u32 to) {
    if (left > 0) {
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) begin_copy_once(to + slot * 512 + lane * 16, w + nearest(slot) * (int)WARP);
      if (lane < TILES * GROUPS * 2) begin_copy_once(to + TILES * 512 + lane * 16, s);
#ifdef OFFSETS
      if (lane < TILES * GROUPS * 4) begin_copy_once(to + TILES * (512 + TILE_SCALES) + lane * 16, o);
#endif
    }
    end_group();
    const int hop = (PAIRED == 1 ? stride : second ? 2 * stride - 1 : 1) * K_TILES;
    w += (size_t)hop * WARP;
    s += (size_t)hop * (GROUPS * 2);
#ifdef OFFSETS
    o += (size_t)hop * (GROUPS * 4);
#endif
    left--;
  };
#pragma unroll
  for (int stage = 0; stage < STAGES; stage++) fetch(stage % 2 == 1, ring_at + stage * PLACE_BYTES);
#ifdef NORM
  // brings the norm's weights near, before the input is there
  if (threadIdx.x * 8 < COLUMNS) look_at((const uint4*)norm + threadIdx.x);
#endif
  let_next_start();
  fill_table(code);
  wait_for_input();

  auto tile_of = [&](int slot) { return has(slot) ? k0 + slot : -1; };
  u32 input[TILES][8];
  load_input(input, x, norm, eps, COLUMNS, count, tile_of);
  __syncthreads();
  const u32 lane_at = lane_address();

  u32 place = ring_at;
  for (int turn = 0; turn * IN_TURN < mine; turn++) {
    const int buffer = turn % 2 * 2, unit = group + turn * IN_TURN * stride;
#pragma unroll
    for (int deep = 0; deep < 2; deep++) {
      if (PAIRED == 1 && turn * IN_TURN + deep >= mine) break;
      float total[4] = {0.f, 0.f, 0.f, 0.f};
      wait_for_groups<STAGES - 1>();
      __syncwarp();
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        u32 words[4];
        load_shared(words, place + slot * 512 + lane * 16);
        u32 by[GROUPS];
        float2 shift[GROUPS];
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          const u32 group = slot * GROUPS + i, scales_at = place + TILES * 512;
          by[i] = load_shared_word(scales_at + group * 32 + g * 4);
#ifdef OFFSETS
          shift[i] = load_shared_pair(scales_at + TILES * TILE_SCALES + group * 64 + g * 8);
#endif
        }
        multiply_tile(total, words, input[slot], by, shift, lane_at);
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
      float* const of_part = PARTS > 1 ? sums + (size_t)part * rows * count : nullptr;
      if (reader >= 0 && reader < 128 && turn * IN_TURN + i < mine)
        add_up_warps(buffer + i, unit + i * stride, reader, rows, count, bias, residual, y, of_part);
    }
  }
  wait_for_groups<0>();
#if PARTS > 1
  add_up_parts(group, stride, sums, counters, rows, count, bias, residual, y);
#endif
}
