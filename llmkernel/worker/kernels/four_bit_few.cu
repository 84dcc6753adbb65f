#include "four_bit.cuh"

// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

// Up to 8 rows of activations, on tensor cores. A warp keeps the activations of its TILES k-tiles in
// registers and multiplies one row tile after the other with them; the weights of DEEP row tiles are on
// their way, and what is fetched takes the place of what has just been used. The warps of a block are side
// by side along k, the PARTS of k are blocks. A scale belongs to a tile's row: steps are summed unscaled,
// then scaled into the total. With several parts each one's sums go to `sums` [PARTS, count, rows]; of the
// blocks of the same row tiles the one that is done last adds them up, in order.
// NORM: x becomes x * rsqrt(mean(x^2) + eps) * norm first; then PARTS is 1.
// COLUMNS is known, so that most k-tiles are known to be there. GATED: DEEP is 2.
#define DEEP STAGES
#define K_TILES (COLUMNS / 64)
#define PER_PART ((K_TILES + PARTS - 1) / PARTS)
#define IN_TURN (DEEP / PAIRED)
extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
four_bit_few(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
             const float* __restrict__ code, const u16* x, const u16* __restrict__ norm, float eps,
             const u16* __restrict__ bias, const u16* residual, u16* y, float* sums, u32* counters,
             int rows, int count, const __grid_constant__ Ahead ahead) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int units = (rows >> 4) / PAIRED;
  const int part = PARTS == 1 ? 0 : blockIdx.x % PARTS, group = blockIdx.x / PARTS, stride = gridDim.x / PARTS;
  const int k0 = part * PER_PART + warp;
  // k-tile `slot` of this warp is there; for most slots that is known when this is compiled
  auto has = [&](int slot) {
    if (K_TILES % PARTS == 0 && (slot + 1) * WARPS <= PER_PART) return true;
    return (int)warp + slot * WARPS < min(PER_PART, K_TILES - part * PER_PART);
  };

  uint4 next[DEEP][TILES];
  float2 scale[DEEP][TILES][GROUPS];
#ifdef OFFSETS
  float2 offset[DEEP][TILES][GROUPS];
#endif
  // the row tiles (pairs) of a turn
  const uint4* w[IN_TURN];
  const float2* s[IN_TURN];
#ifdef OFFSETS
  const float2* o[IN_TURN];
#endif
#pragma unroll
  for (int i = 0; i < IN_TURN; i++) {
    const size_t tile = (size_t)((group + i * stride) * PAIRED) * K_TILES + k0;
    w[i] = weights + tile * WARP + lane;
    s[i] = scales + tile * GROUPS * 8 + g;
#ifdef OFFSETS
    o[i] = offsets + tile * GROUPS * 8 + g;
#endif
  }
  const size_t leap = (size_t)(IN_TURN * stride * PAIRED) * K_TILES;
  // of slots `slot` and the one after it
  auto fetch = [&](int deep, int slot, bool there) {
    const int i = deep / PAIRED, at = deep % PAIRED * K_TILES + slot * WARPS;
    const bool second = slot + 1 < TILES && has(slot + 1);
    const uint4* from = w[i] + at * (int)WARP;
    const float2* scales_from = s[i] + at * (GROUPS * 8);
    // scales of a slot: GROUPS, next to those of the slot after it
    stream_in_both(there && has(slot), there && second, &next[deep][slot], from, from + WARPS * (int)WARP,
                   scale[deep][slot], scales_from, scales_from + WARPS * GROUPS * 8);
  };
  // Whether row tile `deep` of the turn that begins with `unit` is there.
  auto is_there = [&](int unit, int deep) { return unit + (PAIRED == 2 ? 0 : deep * stride) < units; };
#pragma unroll
  for (int deep = 0; deep < DEEP; deep++) {
#pragma unroll
    for (int slot = 0; slot < TILES; slot++) {
      next[deep][slot] = make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        scale[deep][slot][i] = make_float2(0.f, 0.f);
#ifdef OFFSETS
        offset[deep][slot][i] = make_float2(0.f, 0.f);
#endif
      }
    }
#pragma unroll
    for (int slot = 0; slot < TILES; slot += 2) fetch(deep, slot, is_there(group, deep));
  }
#ifdef NORM
  // brings the norm's weights near, before the input is there
  if (threadIdx.x * 8 < COLUMNS) look_at((const uint4*)norm + threadIdx.x);
#endif
  let_next_start();
  fill_table(code_of_lane(code));
  wait_for_input();

  // activations of token g: columns 8 c to 8 c + 7 of both halves of each k-tile
  u32 input[TILES][8];
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    const bool there = has(slot) && g < count;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = x + (size_t)g * COLUMNS + (k0 + slot * WARPS) * 64 + half * 32 + c * 8;
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
  const float by = rsqrtf(squares / COLUMNS + eps);
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    const bool there = has(slot);
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

  int turn = 0;
  for (int unit = group; unit < units; unit += IN_TURN * stride, turn++) {
    const int buffer = turn % (4 / DEEP) * DEEP;
#pragma unroll
    for (int i = 0; i < IN_TURN; i++) {
      w[i] += leap * WARP;
      s[i] += leap * (GROUPS * 8);
#ifdef OFFSETS
      o[i] += leap * (GROUPS * 8);
#endif
    }
#pragma unroll
    for (int deep = 0; deep < DEEP; deep++) {
      if (!is_there(unit, deep)) break;
      const bool there = is_there(unit + IN_TURN * stride, deep);
      float total[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
      for (int slot = 0; slot < TILES; slot++) {
        const uint4 held = next[deep][slot];
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
          const float2 by = scale[deep][slot][i];
          total[0] += sum[0] * by.x;
          total[1] += sum[1] * by.x;
          total[2] += sum[2] * by.y;
          total[3] += sum[3] * by.y;
#ifdef OFFSETS
          const float2 shift = offset[deep][slot][i];
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
        if (slot % 2 == 1) fetch(deep, slot - 1, there);
      }
      store_shared(partial_at(buffer + deep, warp, lane * 4), total);
    }
    if (warp == 0 && unit + IN_TURN * stride >= units) bring_near(ahead, lane);
    // one barrier a turn: a buffer is written again only after the next one, which the warps that
    // read it now pass only when they have read
    __syncthreads();
#pragma unroll
    for (int i = 0; i < IN_TURN; i++) {
      const int reader = threadIdx.x - (turn * IN_TURN + i) % (WARPS / 4) * 128;
      if (reader >= 0 && reader < 128 && is_there(unit, i * PAIRED)) add_up_unit(unit + i * stride, reader, buffer + i);
    }
  }
#if PARTS > 1
  // the blocks of the other parts have had the same row tiles
  if (last_to_arrive(counters + group, PARTS)) {
    const int mine = (units - group + stride - 1) / stride;
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
