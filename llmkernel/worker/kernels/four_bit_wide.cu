#include "four_bit.cuh"

// 9 to 64 rows of activations on the tensor cores of Hopper (9.0), which multiply on their own while the
// warps look the next weights up: wgmma takes weights from registers and activations from shared memory
// (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions").
//
// A warpgroup of 4 warps takes 4 row tiles, a warp each. A block has ROW_GROUPS warpgroups along the rows
// and K_GROUPS along k, and one of gridDim.y parts of k. In each turn each of the K_GROUPS takes DEPTH
// k-tiles; the activations of a turn are in one of two places of shared memory, those of the next one are
// stored while nobody reads the other, those after it are on their way to registers. So are the weights of
// the next turn. Weights are scaled before they are multiplied, which rounds them as bitsandbytes' own
// kernels do. With several parts each one's sums go to `sums` [gridDim.y, count, rows], and the block that
// comes last adds them up, in order. TOKENS tiles of 8 are multiplied at once, 4 or a multiple of them.
//
// Activations in shared memory: for each step of 16 columns two halves of 8 numbers of each token, 16
// bytes: [k-tile][step][half][token]. The numbers are in the order in which fragments of weights have
// them (four_bit.cuh): half h of step s has columns 32 (s >> 1) + 8 c + 4 (s & 1) + 2 h and the next, for
// c from 0 to 3. That is word 2 (s & 1) + h of the 4 pieces of 16 bytes that make 32 columns.
#define K_TILES (COLUMNS / 64)
#define THREADS (ROW_GROUPS * K_GROUPS * 128)
#define WIDE (ROW_GROUPS * 64)
#define ALL_TOKENS (TOKENS * 8)
#define TILE_BYTES (ALL_TOKENS * 128)
#define STAGE_BYTES (DEPTH * K_GROUPS * TILE_BYTES)
#define STAGE_AT (TABLE_AT + 256 * 256)
#define AT_ONCE (TOKENS < 4 ? TOKENS : 4)
#define CHUNKS (TOKENS / AT_ONCE)
// A piece is half a k-tile of a token.
#define PIECES (DEPTH * K_GROUPS * 2 * ALL_TOKENS)
#define MOST_PIECES ((PIECES + THREADS - 1) / THREADS)

#ifdef BF16
#define KIND "f32.bf16.bf16 "
#else
#define KIND "f32.f16.f16 "
#endif

typedef unsigned long long u64;

// Where 8 tokens of one half of a step begin at `at`, the other half ALL_TOKENS * 16 bytes on, the next 8
// tokens 128: a matrix descriptor without swizzling, k fastest.
__device__ __forceinline__ u64 descriptor(u32 at) {
  return (u64)((at & 0x3ffff) >> 4) | (u64)(ALL_TOKENS * 16 >> 4) << 16 | (u64)(128 >> 4) << 32;
}

__device__ __forceinline__ void registers_ready() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void send() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int MOST>
__device__ __forceinline__ void wait_until_at_most() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(MOST) : "memory");
}

// d += a * b of 64 rows and 8 * AT_ONCE tokens, begun and not waited for
__device__ __forceinline__ void begin_mma(float* d, const u32* a, u64 b) {
#if TOKENS == 2
  asm volatile("wgmma.mma_async.sync.aligned.m64n16k16." KIND
      "{%0,%1,%2,%3,%4,%5,%6,%7},{%8,%9,%10,%11},%12,1,1,1,0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#elif TOKENS == 3
  asm volatile("wgmma.mma_async.sync.aligned.m64n24k16." KIND
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11},{%12,%13,%14,%15},%16,1,1,1,0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#else
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16." KIND
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15},{%16,%17,%18,%19},%20,1,1,1,0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
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
    y[(size_t)token * (rows / PAIRED) + output] = narrow(value);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
four_bit_wide(const uint4* __restrict__ weights, const float2* __restrict__ scales, const float2* __restrict__ offsets,
              const float* __restrict__ code, const u16* x, const u16* __restrict__ bias,
              const u16* residual, u16* y, float* sums, u32* counters, int rows, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int row_group = (warp >> 2) % ROW_GROUPS, k_group = (warp >> 2) / ROW_GROUPS;
  const int block_tile = blockIdx.x * ROW_GROUPS * 4, mine = row_group * 4 + (warp & 3);
  const int per = (K_TILES + gridDim.y - 1) / gridDim.y;
  const int begin = blockIdx.y * per, end = min(begin + per, K_TILES);
  const int turns = (end - begin + DEPTH * K_GROUPS - 1) / (DEPTH * K_GROUPS);
  int left = (end - begin - k_group + K_GROUPS - 1) / K_GROUPS;  // k-tiles of this warpgroup

  // warps beyond the last row compute what the last one does, and write nothing
  const u32 tile0 = min(block_tile + mine, (rows >> 4) - 1) * K_TILES + begin + k_group;
  const uint4* w = weights + (tile0 * WARP + lane);
  const float2* s = scales + (tile0 * GROUPS * 8 + g);
#ifdef OFFSETS
  const float2* o = offsets + (tile0 * GROUPS * 8 + g);
#endif
  uint4 next[DEPTH];
  float2 scale[DEPTH][GROUPS];
#ifdef OFFSETS
  float2 offset[DEPTH][GROUPS];
#endif
  auto fetch = [&](int slot) {
    next[slot] = stream_in(w + slot * K_GROUPS * WARP);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
      scale[slot][i] = stream_in(s + (slot * K_GROUPS * GROUPS + i) * 8);
#ifdef OFFSETS
      offset[slot][i] = stream_in(o + (slot * K_GROUPS * GROUPS + i) * 8);
#endif
    }
  };
  auto advance = [&] {
    w += DEPTH * K_GROUPS * WARP;
    s += DEPTH * K_GROUPS * GROUPS * 8;
#ifdef OFFSETS
    o += DEPTH * K_GROUPS * GROUPS * 8;
#endif
  };

  // Pieces of a turn, token fastest, so that 8 lanes store 128 bytes in a row. Tokens beyond the last one
  // are computed as the last one.
  uint4 piece[MOST_PIECES][4];
  auto load = [&](int turn) {
#pragma unroll
    for (int j = 0; j < MOST_PIECES; j++) {
      const int i = threadIdx.x + j * THREADS, rest = i / ALL_TOKENS;
      const int token = min(i % ALL_TOKENS, count - 1), k = begin + turn * DEPTH * K_GROUPS + (rest >> 1);
      if (i >= PIECES || k >= end) continue;
      const uint4* from = (const uint4*)(x + ((size_t)token * COLUMNS + k * 64 + (rest & 1) * 32));
#pragma unroll
      for (int v = 0; v < 4; v++) piece[j][v] = from[v];
    }
  };
  auto store = [&](int turn) {
#pragma unroll
    for (int j = 0; j < MOST_PIECES; j++) {
      const int i = threadIdx.x + j * THREADS, rest = i / ALL_TOKENS;
      if (i >= PIECES) continue;
      const u32 to = STAGE_AT + (turn & 1) * STAGE_BYTES + rest * (TILE_BYTES / 2) + i % ALL_TOKENS * 16;
      const uint4* p = piece[j];
      const u32 at[4][4] = {{p[0].x, p[1].x, p[2].x, p[3].x}, {p[0].y, p[1].y, p[2].y, p[3].y},
                            {p[0].z, p[1].z, p[2].z, p[3].z}, {p[0].w, p[1].w, p[2].w, p[3].w}};
#pragma unroll
      for (int word = 0; word < 4; word++)
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
            :: "r"(to + word * (ALL_TOKENS * 16)), "r"(at[word][0]), "r"(at[word][1]), "r"(at[word][2]), "r"(at[word][3])
            : "memory");
    }
    // what follows reads it by another way than loads
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  };

#pragma unroll
  for (int slot = 0; slot < DEPTH; slot++)
    if (slot < left) fetch(slot);
  advance();
  let_next_start();
  fill_table(code);
  wait_for_input();
#pragma unroll
  for (int j = 0; j < MOST_PIECES; j++)
#pragma unroll
    for (int v = 0; v < 4; v++) piece[j][v] = make_uint4(0, 0, 0, 0);
  load(0);
  store(0);
  load(1);
  __syncthreads();

  float total[CHUNKS][AT_ONCE * 4];
#pragma unroll
  for (int n = 0; n < CHUNKS; n++)
#pragma unroll
    for (int i = 0; i < AT_ONCE * 4; i++) total[n][i] = 0.f;
  const u32 lane_at = lane_address();
  u32 a[2][4][4];

  for (int turn = 0; turn < turns; turn++) {
    if (turn + 1 < turns) store(turn + 1);
    if (turn + 2 < turns) load(turn + 2);
    const u32 stage = STAGE_AT + (turn & 1) * STAGE_BYTES + k_group * TILE_BYTES;
#pragma unroll
    for (int slot = 0; slot < DEPTH; slot++) {
      if (slot >= left) break;
      u32 by[GROUPS][2];  // scales of rows g and g + 8, each for both weights of a pair
#ifdef OFFSETS
      u32 shift[GROUPS][2];
#endif
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        by[i][0] = pack(scale[slot][i].x, scale[slot][i].x);
        by[i][1] = pack(scale[slot][i].y, scale[slot][i].y);
#ifdef OFFSETS
        shift[i][0] = pack(-offset[slot][i].x, -offset[slot][i].x);
        shift[i][1] = pack(-offset[slot][i].y, -offset[slot][i].y);
#endif
      }
      const u32 words[4] = {next[slot].x, next[slot].y, next[slot].z, next[slot].w};
      if (slot + DEPTH < left) fetch(slot);
      u32(*mine_a)[4] = a[slot & 1];
#pragma unroll
      for (int step = 0; step < 4; step++) {
        const int i = step * GROUPS / 4;
        u32* of = mine_a[step];
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
      registers_ready();
#pragma unroll
      for (int step = 0; step < 4; step++)
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
          begin_mma(total[n], mine_a[step],
                    descriptor(stage + slot * K_GROUPS * TILE_BYTES + step * (ALL_TOKENS * 32) + n * (AT_ONCE * 128)));
      send();
      wait_until_at_most<1>();  // the fragments of the k-tile before are free
    }
    wait_until_at_most<0>();
    left -= DEPTH;
    advance();
    __syncthreads();
  }

  // The warps' sums go through the place of the table: of each of the K_GROUPS [token][row of the block],
  // rows padded by 4 so that few lanes write to one bank.
  extern __shared__ float share[];
  constexpr int PITCH = WIDE + 4;
  const int first = block_tile * 16;
#pragma unroll
  for (int n = 0; n < TOKENS; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int token = n * 8 + c * 2 + (i & 1), row = mine * 16 + g + (i & 2) * 4;
      share[(k_group * ALL_TOKENS + token) * PITCH + row] = total[n / AT_ONCE][n % AT_ONCE * 4 + i];
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
