#include "four_bit.cuh"

// Up to 8 * TOKENS rows of activations, on tensor cores. A block takes TILES * ROW_WARPS row tiles
// and one of gridDim.y parts of k. In each turn each of its K_WARPS columns of warps takes DEPTH
// k-tiles; the activations of a turn are brought to shared memory once for all warps, EARLY turns
// early, in the order in which the lanes of a warp read them. Warps wait for each other only there, and
// may be STAGES - EARLY turns apart, so that some look weights up while others multiply. Each warp has
// the weights of its TILES row tiles for the next turn on their way to registers. Weights are scaled before they are
// multiplied, which rounds them as bitsandbytes' own kernels do. With several parts each one's sums go
// to `sums` [gridDim.y, count, rows], and the block that comes last adds them up, in order.
// rows is a multiple of 16 * TILES. COLUMNS is known, so that addresses are constants.
#define EARLY (STAGES / 2)
#define K_TILES (COLUMNS / 64)
#define STAGE_AT (TABLE_AT + 256 * 256)
#define WARPS (ROW_WARPS * K_WARPS)
#define PIECES (DEPTH * K_WARPS * TOKENS * 2)
#define MOST_PIECES ((PIECES + WARPS - 1) / WARPS)
#define STAGE_BYTES (PIECES * 512)
#define THREADS (WARPS * 32)
#define WIDE (TILES * ROW_WARPS * 16)

// A row's worth of outputs of a block: rows from `first` on of all tokens, each the sum over the parts
// that `total_of(token, row)` gives.
template <typename Total>
__device__ __forceinline__ void write_out(Total total_of, int first, int rows, int count,
                                          const u16* bias, const u16* residual, u16* y) {
  constexpr int OUTPUTS = WIDE / PAIRED;
  for (int at = threadIdx.x; at < OUTPUTS * count; at += THREADS) {
    const int token = at / OUTPUTS, i = at % OUTPUTS, output = first / PAIRED + i;
    if (output >= rows / PAIRED) continue;
#ifdef GATED
    const int gate = first + (i >> 4) * 32 + (i & 15), up = gate + 16;
    float g = total_of(token, gate), u = total_of(token, up);
    if (bias) g += widen(bias[gate]), u += widen(bias[up]);
    const float value = silu(g) * u;
#else
    float value = total_of(token, output);
    if (bias) value += widen(bias[output]);
    if (residual) value += widen(residual[(size_t)token * rows + output]);
#endif
    y[(size_t)token * (rows / PAIRED) + output] = narrow(value);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
four_bit_many(const uint4* __restrict__ weights, const u32* __restrict__ scales, const float2* __restrict__ offsets,
              const __grid_constant__ Code code, const u16* x, const u16* __restrict__ bias,
              const u16* residual, u16* y, float* sums, u32* counters, int rows, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int row_warp = warp % ROW_WARPS, k_warp = warp / ROW_WARPS;
  const int block_tile = blockIdx.x * TILES * ROW_WARPS;
  const int per = (K_TILES + gridDim.y - 1) / gridDim.y;
  const int begin = blockIdx.y * per, end = min(begin + per, K_TILES);
  const int turns = (end - begin + DEPTH * K_WARPS - 1) / (DEPTH * K_WARPS);
  int left = (end - begin - k_warp + K_WARPS - 1) / K_WARPS;  // k-tiles of this warp

  // warps beyond the last row compute what the last ones do, and write nothing
  const u32 tile0 = min(block_tile + row_warp * TILES, (rows >> 4) - TILES) * K_TILES + begin + k_warp;
  const uint4* w = weights + (tile0 * WARP + lane);
  const u32* s = scales + (tile0 * GROUPS * 8 + g);
#ifdef OFFSETS
  const float2* o = offsets + (tile0 * GROUPS * 8 + g);
#endif
  uint4 next[DEPTH][TILES];
  u32 scale[DEPTH][TILES][GROUPS];
#ifdef OFFSETS
  float2 offset[DEPTH][TILES][GROUPS];
#endif
  auto fetch = [&](int slot, int r) {
    next[slot][r] = stream_in(w + (r * K_TILES + slot * K_WARPS) * WARP);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
      scale[slot][r][i] = stream_in(s + ((r * K_TILES + slot * K_WARPS) * GROUPS + i) * 8);
#ifdef OFFSETS
      offset[slot][r][i] = stream_in(o + ((r * K_TILES + slot * K_WARPS) * GROUPS + i) * 8);
#endif
    }
  };
  auto advance = [&] {
    w += DEPTH * K_WARPS * WARP;
    s += DEPTH * K_WARPS * GROUPS * 8;
#ifdef OFFSETS
    o += DEPTH * K_WARPS * GROUPS * 8;
#endif
  };

  // A piece is what a warp reads with one load a lane: 8 tokens, half of a k-tile. Tokens beyond the
  // last one are computed as the last one.
  const u16* piece_from[MOST_PIECES];
  int piece_turns[MOST_PIECES];
#pragma unroll
  for (int j = 0; j < MOST_PIECES; j++) {
    const int p = warp + j * WARPS, k = (p >> 1) / TOKENS;
    const int token = min((int)((p >> 1) % TOKENS * 8 + g), count - 1);
    piece_from[j] = x + ((size_t)token * COLUMNS + (begin + k) * 64 + (p & 1) * 32 + c * 8);
    piece_turns[j] = p < PIECES ? (end - begin - k + DEPTH * K_WARPS - 1) / (DEPTH * K_WARPS) : 0;
  }
  __shared__ unsigned long long filled[STAGES], emptied[STAGES];
  const u32 filled_at = shared_address(filled), emptied_at = shared_address(emptied);
  if (threadIdx.x < STAGES) {
    make_barrier(filled_at + threadIdx.x * 8, THREADS);
    make_barrier(emptied_at + threadIdx.x * 8, WARPS);
  }
  auto stage = [&](int turn) {
    const u32 place = turn % STAGES, at = STAGE_AT + place * STAGE_BYTES + warp * 512 + lane * 16;
    if (turn >= STAGES) wait_at(emptied_at + place * 8, turn / STAGES - 1 & 1);
#pragma unroll
    for (int j = 0; j < MOST_PIECES; j++) {
      if (turn < piece_turns[j]) begin_copy(at + j * WARPS * 512, piece_from[j]);
      piece_from[j] += DEPTH * K_WARPS * 64;
    }
    arrive_with_copies(filled_at + place * 8);
  };

#pragma unroll
  for (int slot = 0; slot < DEPTH; slot++)
#pragma unroll
    for (int r = 0; r < TILES; r++)
      if (slot < left) fetch(slot, r);
  advance();
  let_next_start();
  fill_table(code);
  wait_for_input();
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < EARLY; turn++) stage(turn);

  float total[TILES][TOKENS][4];
#pragma unroll
  for (int r = 0; r < TILES; r++)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) total[r][n][i] = 0.f;
  const u32 lane_at = lane_address();

  for (int turn = 0; turn < turns; turn++) {
    if (turn + EARLY < turns) stage(turn + EARLY);
    const u32 place = turn % STAGES, from = STAGE_AT + place * STAGE_BYTES + k_warp * (TOKENS * 1024) + lane * 16;
    wait_at(filled_at + place * 8, turn / STAGES & 1);
#pragma unroll
    for (int slot = 0; slot < DEPTH; slot++) {
      if (slot >= left) break;
      u32 input[TOKENS][8];
#pragma unroll
      for (int n = 0; n < TOKENS; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
          load_shared(&input[n][4 * half], from + slot * (K_WARPS * TOKENS * 1024) + (n * 2 + half) * 512);
#pragma unroll
      for (int r = 0; r < TILES; r++) {
        u32 by[GROUPS][2];  // scales of rows g and g + 8, each for both weights of a pair
#ifdef OFFSETS
        u32 shift[GROUPS][2];
#endif
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
          const float2 wide = both_halves(scale[slot][r][i]);
          by[i][0] = pack(wide.x, wide.x);
          by[i][1] = pack(wide.y, wide.y);
#ifdef OFFSETS
          shift[i][0] = pack(-offset[slot][r][i].x, -offset[slot][r][i].x);
          shift[i][1] = pack(-offset[slot][r][i].y, -offset[slot][r][i].y);
#endif
        }
        const u32 words[4] = {next[slot][r].x, next[slot][r].y, next[slot][r].z, next[slot][r].w};
#pragma unroll
        for (int step = 0; step < 4; step++) {
          const int i = step * GROUPS / 4;
          u32 a[4] = {pair_of<0>(words[step], lane_at), pair_of<1>(words[step], lane_at),
                      pair_of<2>(words[step], lane_at), pair_of<3>(words[step], lane_at)};
#pragma unroll
          for (int j = 0; j < 4; j++) {
#ifdef OFFSETS
            a[j] = pair_fma(a[j], by[i][j & 1], shift[i][j & 1]);
#else
            a[j] = pair_times(a[j], by[i][j & 1]);
#endif
          }
#pragma unroll
          for (int n = 0; n < TOKENS; n++) mma(total[r][n], a, input[n][2 * step], input[n][2 * step + 1]);
        }
        if (slot + DEPTH < left) fetch(slot, r);
      }
    }
    __syncwarp();
    if (lane == 0) arrive(emptied_at + place * 8);
    left -= DEPTH;
    advance();
  }

  // The warps' sums go through the place of the table: of each of the K_WARPS [token][row of the
  // block], rows padded by 4 so that few lanes write to one bank.
  float* const share = dynamic_shared();
  constexpr int PITCH = WIDE + 4;
  const int first = block_tile * 16;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < TILES; r++)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = n * 8 + c * 2 + (i & 1), row = (row_warp * TILES + r) * 16 + g + (i & 2) * 4;
        share[(k_warp * TOKENS * 8 + token) * PITCH + row] = total[r][n][i];
      }
  __syncthreads();
  auto in_block = [&](int token, int row) {
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < K_WARPS; w++) sum += share[(w * TOKENS * 8 + token) * PITCH + row - first];
    return sum;
  };
  if (gridDim.y == 1) {
    write_out(in_block, first, rows, count, bias, residual, y);
    return;
  }
  for (int at = threadIdx.x; at < WIDE * count; at += THREADS) {
    const int token = at / WIDE, row = first + at % WIDE;
    if (row < rows) __stcg(sums + ((size_t)blockIdx.y * count + token) * rows + row, in_block(token, row));
  }
  if (last_to_arrive(counters + blockIdx.x, gridDim.y)) {
    const int parts = gridDim.y;
    write_out(
        [&](int token, int row) {
          float sum = 0.f;
#pragma unroll 4
          for (int p = 0; p < parts; p++) sum += __ldcg(sums + ((size_t)p * count + token) * rows + row);
          return sum;
        },
        first, rows, count, bias, residual, y);
  }
}
