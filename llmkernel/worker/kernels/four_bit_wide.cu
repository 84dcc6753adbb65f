#include "four_bit.cuh"
#include "hopper.cuh"

// 9 to 64 rows of activations on the tensor cores of Hopper (9.0a), which multiply on their own while the
// warps look the next weights up: weights come from registers, activations from shared memory.
//
// A warp has a row tile, of ROW_TILES in a block; warpgroups of 4 warps are ROW_GROUPS side by side along
// the rows and K_GROUPS along k, and there are gridDim.y parts of k. Each of the K_GROUPS takes the k-tiles
// of its share in turns of DEPTH. A warp has the weights of its next W_STAGES turns on their way to places
// of its own in shared memory; the activations of a turn, the same for all its warps, are brought to one of
// X_STAGES places by a warp that does nothing else. Who waits for whom is counted at barriers; no turn has a
// barrier of the whole block. Weights are scaled before they are multiplied, which rounds them as
// bitsandbytes' own kernels do.
//
// x is arranged: [k-tile][step][half][TOKENS * 8 tokens][8 numbers], in the order in which fragments of
// weights have them (four_bit.cuh): number 2 c + e of half h of step s is column 32 (s >> 1) + 8 c +
// 4 (s & 1) + 2 h + e of the tile. With ARRANGED so is y.
#define K_TILES (COLUMNS / 64)
#define CONSUMERS (ROW_GROUPS * K_GROUPS * 128)
#define THREADS (CONSUMERS + 32)
#define WIDE (ROW_TILES * 16)
#define ALL_TOKENS (TOKENS * 8)
#define TILE_BYTES (ALL_TOKENS * 128)
#ifdef OFFSETS
#define TILE_WEIGHTS (512 + 2 * GROUPS * 64)
#else
#define TILE_WEIGHTS (512 + GROUPS * 64)
#endif
#define W_BYTES (DEPTH * TILE_WEIGHTS)
#define X_BYTES (DEPTH * TILE_BYTES)
#define X_AT ((TABLE_AT + 256 * 256 + 1023) / 1024 * 1024)
#define W_AT (X_AT + K_GROUPS * X_STAGES * X_BYTES)

// Where column `at` of a token lies in an arranged matrix.
__device__ __forceinline__ size_t arranged_at(int token, int at) {
  const int step = (at >> 5 & 1) * 2 + (at >> 2 & 1), half = at >> 1 & 1, number = (at >> 3 & 3) * 2 + (at & 1);
  return ((((size_t)(at >> 6) * 4 + step) * 2 + half) * ALL_TOKENS + token) * 8 + number;
}

// Rows of a block from `first` on of all tokens, each the sum that `total_of(token, row)` gives.
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
#ifdef ARRANGED
    y[arranged_at(token, output)] = narrow(value);
#else
    y[(size_t)token * (rows / PAIRED) + output] = narrow(value);
#endif
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
four_bit_wide(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
              const float* __restrict__ code, const u16* x, const u16* __restrict__ bias,
              const u16* residual, u16* y, float* sums, u32* counters, int rows, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int block_tile = blockIdx.x * ROW_TILES;
  const int row_group = (warp >> 2) % ROW_GROUPS, k_group = (warp >> 2) / ROW_GROUPS;
  const int per_part = (K_TILES + gridDim.y - 1) / gridDim.y, part_end = min((int)(blockIdx.y + 1) * per_part, K_TILES);
  const int per = (per_part + K_GROUPS - 1) / K_GROUPS;  // k-tiles of a group
  const int all_turns = (per + DEPTH - 1) / DEPTH;
  auto begin_of = [&](int group) { return min((int)blockIdx.y * per_part + group * per, part_end); };
  auto end_of = [&](int group) { return min((int)blockIdx.y * per_part + (group + 1) * per, part_end); };

  __shared__ unsigned long long filled[K_GROUPS * X_STAGES], emptied[K_GROUPS * X_STAGES];
  const u32 filled_at = shared_address(filled), emptied_at = shared_address(emptied);
  if (threadIdx.x < K_GROUPS * X_STAGES) {
    make_barrier(filled_at + threadIdx.x * 8, 1);
    make_barrier(emptied_at + threadIdx.x * 8, ROW_GROUPS * 4);
  }
  const int mine = row_group * 4 + (warp & 3);  // row tile of this warp in the block
  const bool busy = warp < CONSUMERS / 32 && mine < ROW_TILES && block_tile + mine < rows >> 4;
  const int begin = begin_of(k_group), end = end_of(k_group);
  const int turns = max(0, (end - begin + DEPTH - 1) / DEPTH);
  const u32 ring_at = W_AT + warp * (W_STAGES * W_BYTES);
  const size_t tile0 = (size_t)(block_tile + mine) * K_TILES + begin;

  // weights and scales of a turn, each next to each other
  auto fetch = [&](int turn, u32 place) {
    const u32 to = ring_at + place * W_BYTES;
    const int many = min(DEPTH, end - begin - turn * DEPTH);
    if (busy && many > 0) {
      const size_t tile = tile0 + turn * DEPTH;
#pragma unroll
      for (int slot = 0; slot < DEPTH; slot++)
        if (slot < many) begin_copy(to + slot * 512 + lane * 16, weights + (tile + slot) * WARP + lane);
      if ((int)lane < many * GROUPS * 4) {
        begin_copy(to + DEPTH * 512 + lane * 16, (const uint4*)(scales + tile * GROUPS * 8) + lane);
#ifdef OFFSETS
        begin_copy(to + DEPTH * (512 + GROUPS * 64) + lane * 16, (const uint4*)(offsets + tile * GROUPS * 8) + lane);
#endif
      }
    }
    end_group();
  };
  if (warp < CONSUMERS / 32)
#pragma unroll
    for (int stage = 0; stage < W_STAGES; stage++) fetch(stage, stage);
  let_next_start();
  fill_table(code_of_lane(code));
  barriers_are_made();
  wait_for_input();
  __syncthreads();

  float total[TOKENS * 4];
#pragma unroll
  for (int i = 0; i < TOKENS * 4; i++) total[i] = 0.f;

  if (warp == CONSUMERS / 32) {
    if (lane == 0)
      for (int turn = 0; turn < all_turns; turn++) {
        const u32 place = turn % X_STAGES;
#pragma unroll
        for (int group = 0; group < K_GROUPS; group++) {
          const int from = begin_of(group) + turn * DEPTH, many = min(DEPTH, end_of(group) - from);
          if (many <= 0) continue;
          const u32 barrier = (group * X_STAGES + place) * 8;
          if (turn >= X_STAGES) wait_at(emptied_at + barrier, turn / X_STAGES - 1 & 1);
          arrive_and_expect(filled_at + barrier, many * TILE_BYTES);
          begin_bulk_copy(X_AT + (group * X_STAGES + place) * X_BYTES, x + (size_t)from * (ALL_TOKENS * 64),
                          many * TILE_BYTES, filled_at + barrier);
        }
      }
    __syncwarp();
  } else {
    const u32 lane_at = lane_address();
    u32 a[2][4][4] = {};
    u32 place = 0, w_place = 0, parity = 0;
    for (int turn = 0; turn < turns; turn++) {
      const int many = min(DEPTH, end - begin - turn * DEPTH);
      const u32 from = ring_at + w_place * W_BYTES, stage = k_group * X_STAGES + place;
      wait_for_groups<W_STAGES - 1>();
      __syncwarp();
      bool came = false;
#pragma unroll
      for (int slot = 0; slot < DEPTH; slot++) {
        if (slot >= many) break;
        u32(*fragments)[4] = a[slot & 1];
        if (busy) {
          u32 by[GROUPS][2];  // scales of rows g and g + 8, each for both weights of a pair
#ifdef OFFSETS
          u32 shift[GROUPS][2];
#endif
#pragma unroll
          for (int i = 0; i < GROUPS; i++) {
            const u32 scale_at = from + DEPTH * 512 + (slot * GROUPS + i) * 64 + g * 8;
            const float2 scale = load_shared_pair(scale_at);
            by[i][0] = pack(scale.x, scale.x), by[i][1] = pack(scale.y, scale.y);
#ifdef OFFSETS
            const float2 offset = load_shared_pair(scale_at + DEPTH * GROUPS * 64);
            shift[i][0] = pack(-offset.x, -offset.x), shift[i][1] = pack(-offset.y, -offset.y);
#endif
          }
          u32 words[4];
          load_shared(words, from + slot * 512 + lane * 16);
#pragma unroll
          for (int step = 0; step < 4; step++) {
            const int i = step * GROUPS / 4;
            u32* of = fragments[step];
            of[0] = pair_of<0>(words[step], lane_at), of[1] = pair_of<1>(words[step], lane_at);
            of[2] = pair_of<2>(words[step], lane_at), of[3] = pair_of<3>(words[step], lane_at);
#pragma unroll
            for (int j = 0; j < 4; j++) {
#ifdef OFFSETS
              of[j] = pair_fma(of[j], by[i][j & 1], shift[i][j & 1]);
#else
              of[j] = pair_times(of[j], by[i][j & 1]);
#endif
            }
          }
        }
        if (!came) wait_at(filled_at + stage * 8, parity), came = true;
        registers_ready();
#pragma unroll
        for (int step = 0; step < 4; step++)
          begin_wide_mma<TOKENS>(total, fragments[step],
                                 tokens_at(X_AT + stage * X_BYTES + slot * TILE_BYTES + step * (ALL_TOKENS * 32), ALL_TOKENS));
        send();
        wait_until_at_most<1>();  // the fragments of the k-tile before are free
        if (slot == 0 && turn > 0 && lane == 0)  // and so are its activations
          arrive(emptied_at + (k_group * X_STAGES + (place == 0 ? X_STAGES - 1 : place - 1)) * 8);
      }
      __syncwarp();  // the place is free
      fetch(turn + W_STAGES, w_place);
      w_place = w_place + 1 == W_STAGES ? 0 : w_place + 1;
      if (++place == X_STAGES) place = 0, parity ^= 1;
    }
    wait_until_at_most<0>();
    wait_for_groups<0>();
  }

  // The warps' sums go through the place of the table: of each of the K_GROUPS [token][row of the block],
  // rows padded by 4 so that few lanes write to one bank.
  float* const share = dynamic_shared();
  constexpr int PITCH = WIDE + 4;
  const int first = block_tile * 16;
  __syncthreads();
  if (warp < CONSUMERS / 32 && mine < ROW_TILES)
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = n * 8 + c * 2 + (i & 1), row = mine * 16 + g + (i & 2) * 4;
        share[(k_group * ALL_TOKENS + token) * PITCH + row] = total[n * 4 + i];
      }
  __syncthreads();
  auto in_block = [&](int token, int row) {
    float sum = 0.f;
#pragma unroll
    for (int k = 0; k < K_GROUPS; k++) sum += share[(k * ALL_TOKENS + token) * PITCH + row - first];
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
