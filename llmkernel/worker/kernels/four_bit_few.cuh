#include "four_bit.cuh"

// What the products of up to 8 rows of activations share: WARPS side by side along k, each with the
// activations of its TILES k-tiles in registers, whose sums are added up in shared memory.

// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

// x becomes x * rsqrt(mean(x^2) + eps) * norm; all threads of the block call it.
template <typename TileOf>
__device__ __forceinline__ void normalise(u32 (*input)[8], const u16* norm, float eps, int columns, TileOf tile_of) {
  const u32 warp = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2, c = threadIdx.x & 3;
  __shared__ float warp_squares[WARPS][8];
  float squares = 0.f;
#pragma unroll
  for (int slot = 0; slot < TILES; slot++)
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float low = low_of(input[slot][j]), high = high_of(input[slot][j]);
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
  for (int slot = 0; slot < TILES; slot++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = norm + tile_of(slot) * 64 + half * 32 + c * 8;
      const uint4 v = tile_of(slot) >= 0 ? __ldg((const uint4*)at) : make_uint4(0, 0, 0, 0);
      const u32 factors[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u32& word = input[slot][half * 4 + j];
        word = pack(low_of(word) * by * low_of(factors[j]), high_of(word) * by * high_of(factors[j]));
      }
    }
}

// Activations of token g of a warp's k-tiles: columns 8 c to 8 c + 7 of both halves of each. Slot i has
// k-tile `tile_of(i)`, none where that is negative. With NORM they are normalised; all threads of the block
// call it.
template <typename TileOf>
__device__ __forceinline__ void load_input(u32 (*input)[8], const u16* x, const u16* norm, float eps, int columns,
                                           int count, TileOf tile_of) {
  const u32 g = (threadIdx.x & 31) >> 2, c = threadIdx.x & 3;
#pragma unroll
  for (int slot = 0; slot < TILES; slot++) {
    const bool there = tile_of(slot) >= 0 && g < count;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const u16* at = x + (size_t)g * columns + tile_of(slot) * 64 + half * 32 + c * 8;
      const uint4 v = there ? *(const uint4*)at : make_uint4(0, 0, 0, 0);
      u32* to = &input[slot][half * 4];
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
  }
#ifdef NORM
  normalise(input, norm, eps, columns, tile_of);
#endif
}

// Adds the product of a tile to the sums of a row tile. A scale belongs to a row: steps are summed unscaled,
// then scaled into the total, which is the first use of scales that may still be on their way. Of `scales` and
// `shift` there are GROUPS.
__device__ __forceinline__ void multiply_tile(float* total, const u32* words, const u32* input, const u32* scales,
                                              const float2* shift, u32 lane_at) {
#pragma unroll
  for (int i = 0; i < GROUPS; i++) {
    float sum[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++) {
      const u32 a[4] = {pair_of<0>(words[step], lane_at), pair_of<1>(words[step], lane_at),
                        pair_of<2>(words[step], lane_at), pair_of<3>(words[step], lane_at)};
      mma(sum, a, input[2 * step], input[2 * step + 1]);
    }
    const float2 by = both_halves(scales[i]);
    total[0] += sum[0] * by.x;
    total[1] += sum[1] * by.x;
    total[2] += sum[2] * by.y;
    total[3] += sum[3] * by.y;
#ifdef OFFSETS
    float added[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int step = i * 4 / GROUPS; step < (i + 1) * 4 / GROUPS; step++)
      add_up(added, input[2 * step], input[2 * step + 1]);
    total[0] -= added[0] * shift[i].x;
    total[1] -= added[1] * shift[i].x;
    total[2] -= added[2] * shift[i].y;
    total[3] -= added[3] * shift[i].y;
#endif
  }
}

// The warps' sums of a row tile (pair), which lie from `buffer` on, into y; `reader` is a number of 128.
__device__ __forceinline__ void add_up_warps(int buffer, int unit, int reader, int rows, int count, const u16* bias,
                                             const u16* residual, u16* y, float* sums) {
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
  if (sums) {
    __stcg(sums + at, sum[0]);
    return;
  }
  float value = sum[0];
  if (bias) value += widen(bias[unit * 16 + row]);
  if (residual) value += widen(residual[at]);
  y[at] = narrow(value);
#endif
}

#if PARTS > 1
// The sums of all parts [PARTS][count][rows] into y, by the last of the blocks that have had the row tiles `group`,
// `group + stride` and so on.
__device__ __forceinline__ void add_up_parts(int group, int stride, const float* sums, u32* counters, int rows, int count,
                                             const u16* bias, const u16* residual, u16* y) {
  if (!last_to_arrive(counters + group, PARTS)) return;
  const int mine = ((rows >> 4) - group + stride - 1) / stride;
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
