#include "four_bit_few.cuh"

// Up to TOKENS rows of activations, on tensor cores, in half of a multiprocessor: the next kernel's block has
// room beside this one, and has its table and its first weights when this one ends. So activations lie in
// shared memory, behind the table, and the weights on their way in registers, AHEAD k-tiles of each warp. The
// warps of a block are side by side along k, with TILES k-tiles each, all columns together; TILES is a multiple
// of AHEAD.
// NORM: x becomes x * norm; sums are multiplied by rsqrt(mean(x^2) + eps) at the end, so nothing waits for it.
#define K_TILES (COLUMNS / 64)
// Two rows lie in different banks.
#define X_STRIDE (COLUMNS * 2 + 64)
#define X_AT (TABLE_AT + 256 * 256)
// 16 bytes of activations of a warp's k-tiles, of each lane
#define CHUNKS ((TILES + 3) / 4)

// x * norm, two of each
__device__ __forceinline__ u32 times(u32 x, u32 norm) {
  return pack(low_of(x) * low_of(norm), high_of(x) * high_of(norm));
}

__device__ __forceinline__ float squares_of(u32 x) { return low_of(x) * low_of(x) + high_of(x) * high_of(x); }

extern "C" __global__ void __launch_bounds__(WARPS * 32, 2)
four_bit_lean(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float* __restrict__ code,
              const u16* x, const u16* __restrict__ norm, float eps, const u16* __restrict__ bias,
              const u16* residual, u16* y, int rows, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int units = (rows >> 4) / PAIRED, k0 = warp * TILES;
  // the warp has all of its k-tiles, which mostly is known when this is compiled
  constexpr bool EXACT = K_TILES == WARPS * TILES;
  const int mine = EXACT ? TILES : min(K_TILES - k0, TILES);

  // the next AHEAD k-tiles that are fetched: number `at` of the matrix and on, `slot` of the warp's in a row tile
  int row = blockIdx.x * PAIRED, slot = 0;
  u32 at = row * K_TILES + k0;
  uint4 next[AHEAD];
  float2 scale[AHEAD];
  auto fetch = [&](int j) {
    if (row < units * PAIRED && (EXACT || slot + j < mine)) {
      next[j] = stream_in_now(weights + (size_t)(at * WARP + lane) + j * WARP);
      scale[j] = stream_in_now(scales + (size_t)(at * 8 + g) + j * 8);
    }
  };
  auto go_on = [&]() {
    slot += AHEAD, at += AHEAD;
    if (slot == TILES) {
      const int hop = PAIRED == 1 ? (int)gridDim.x : row & 1 ? 2 * (int)gridDim.x - 1 : 1;
      slot = 0, row += hop, at += hop * K_TILES - TILES;
    }
  };
#pragma unroll
  for (int j = 0; j < AHEAD; j++) next[j] = make_uint4(0, 0, 0, 0), scale[j] = make_float2(0.f, 0.f), fetch(j);
  let_next_start();
  fill_table(code_of_lane(code));
#ifdef NORM
  __shared__ float warp_squares[TOKENS][WARPS];
  uint4 factors[CHUNKS];
#pragma unroll
  for (int i = 0; i < CHUNKS; i++)
    factors[i] = __ldg((const uint4*)norm + min(k0 * 8 + i * 32 + (int)lane, K_TILES * 8 - 1));
#endif
  __syncthreads();
  wait_for_input();

  // a warp brings what it multiplies, and waits for no other
#pragma unroll
  for (int token = 0; token < TOKENS; token++) {
    if (TOKENS > 1 && token >= count) break;
    uint4 v[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
      if (i * 32 + lane < mine * 8) v[i] = *((const uint4*)(x + (size_t)token * COLUMNS) + k0 * 8 + i * 32 + lane);
#ifdef NORM
    float squares = 0.f;
#endif
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
      if (i * 32 + lane < mine * 8) {
#ifdef NORM
        squares += squares_of(v[i].x) + squares_of(v[i].y) + squares_of(v[i].z) + squares_of(v[i].w);
        v[i] = make_uint4(times(v[i].x, factors[i].x), times(v[i].y, factors[i].y), times(v[i].z, factors[i].z),
                          times(v[i].w, factors[i].w));
#endif
        store_shared(X_AT + token * X_STRIDE + k0 * 128 + (i * 32 + lane) * 16, v[i]);
      }
#ifdef NORM
#pragma unroll
    for (int o = 1; o < 32; o <<= 1) squares += __shfl_xor_sync(~0u, squares, o);
    if (lane == 0) warp_squares[token][warp] = squares;
#endif
  }
  __syncwarp();
  const u32 lane_at = lane_address();
  const u32 x_at = X_AT + min((int)g, TOKENS - 1) * X_STRIDE + k0 * 128 + c * 16;

  for (int unit = blockIdx.x, turn = 0; unit < units; unit += gridDim.x, turn++) {
    const int buffer = (turn & 1) * PAIRED, reader = threadIdx.x - (turn % (WARPS / 4)) * 128;
    const bool reads = reader >= 0 && reader < 128 && token_of(reader) < count;
#ifndef GATED
    // fetched before it is needed
    const int y_row = unit * 16 + row_of(reader);
    const size_t y_at = (size_t)token_of(reader) * rows + y_row;
    float more = bias && reads ? widen(bias[y_row]) : 0.f;
    if (residual && reads) more += widen(residual[y_at]);
#endif
#pragma unroll 1
    for (int pair = 0; pair < PAIRED; pair++) {
      float total[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll 1
      for (int first = 0; first < TILES; first += AHEAD) {
        go_on();
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
          if (EXACT || first + j < mine) {
            const u32 words[4] = {next[j].x, next[j].y, next[j].z, next[j].w};
            u32 input[8];
            load_shared(input, x_at + (first + j) * 128);
            load_shared(input + 4, x_at + (first + j) * 128 + 64);
            multiply_tile(total, words, input, &scale[j], nullptr, lane_at);
          }
          fetch(j);
          __syncwarp();  // or the compiler puts all loads last
        }
      }
      if (2 * c < TOKENS) store_shared(partial_at(buffer + pair, warp, lane * 4), total);
    }
    // one barrier a turn: a buffer is written again only after the next one, which the warps that
    // read it now pass only when they have read
    __syncthreads();
    if (!reads) continue;
    float by = 1.f;
#ifdef NORM
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) squares += warp_squares[token_of(reader)][i];
    by = rsqrtf(squares / COLUMNS + eps);
#endif
    const float sum = sum_of_warps(buffer, reader) * by;
#ifdef GATED
    write_gated(sum, sum_of_warps(buffer + 1, reader) * by, unit, reader, rows, bias, y);
#else
    y[y_at] = narrow(sum + more);
#endif
  }
}
