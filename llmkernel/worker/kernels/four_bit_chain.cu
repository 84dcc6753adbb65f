#include "four_bit.cuh"

// Several products one after the other for up to 8 rows of activations, in one kernel, so that weights
// are read all the time: while the blocks wait for each other between two products, the weights of the
// next one are on their way. There are as many blocks as fit at the same time, one to a multiprocessor.
//
// A product's columns are in parts of at most WARPS * TILES k-tiles. A block keeps to one part, whose
// k-tiles are its warps', `per_warp` to each, next to each other; it takes one row tile after the other
// (gated: pairs). A warp has a ring of STAGES places of its own in shared memory, each for its k-tiles of
// one row tile, and fills a place again as soon as it has used it, whatever product comes next. It waits
// for the other warps only where their sums are added up, once for each row tile or pair.
// With several parts each one's sums go to `sums` [parts, count, rows], and the block of the same row
// tiles that is done last adds them up, in order.

#define WARPS 16
#define TILES 4
#define THREADS (WARPS * 32)
#define TILE_SCALES (GROUPS * 64)
#ifdef OFFSETS
#define PLACE_BYTES (TILES * (512 + 2 * TILE_SCALES))
#else
#define PLACE_BYTES (TILES * (512 + TILE_SCALES))
#endif
#define RING_AT (TABLE_AT + 256 * 256)

// One product, as four_bit_chain.py writes it.
struct Product {
  const uint4* weights;
  const float2 *scales, *offsets;
  const float* code;
  const u16 *x, *norm, *bias, *residual;
  u16* y;
  float eps;
  int rows, columns, parts, per_warp, gated;
};

struct Chain {
  Product products[PRODUCTS];
};

// Which row tile comes next, of which product.
struct Place {
  int product, unit, second;
};

// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

__device__ __forceinline__ int units_of(const Product& p) { return (p.rows >> 4) >> p.gated; }

// Blocks for each part of a product; those beyond the last part have nothing to do.
__device__ __forceinline__ int stride_of(const Product& p) { return gridDim.x / p.parts; }

__device__ __forceinline__ int first_unit(const Product& p) {
  const int place = blockIdx.x / p.parts;
  return place < stride_of(p) ? place : units_of(p);
}

// The first place from `at` on that there is; product PRODUCTS is the end.
__device__ __forceinline__ void settle(const Chain& chain, Place& at) {
  while (at.product < PRODUCTS && at.unit >= units_of(chain.products[at.product])) {
    at.product++;
    if (at.product < PRODUCTS) at.unit = first_unit(chain.products[at.product]);
  }
}

__device__ __forceinline__ void go_on(const Chain& chain, Place& at) {
  const Product& p = chain.products[at.product];
  if (p.gated && !at.second) {
    at.second = 1;
    return;
  }
  at.second = 0;
  at.unit += stride_of(p);
  settle(chain, at);
}

// All blocks come here before any goes on. The sign of the count tells one time from the next, so that
// it never has to be reset: the first block adds what makes it flip when all others have added one.
__device__ __forceinline__ void wait_for_all_blocks(u32* count) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const u32 mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
    const u32 before = atomicAdd(count, mine);
    while (((before ^ load_acquire(count)) & 0x80000000u) == 0) {}
  }
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
four_bit_chain(const __grid_constant__ Chain chain, float* sums, u32* counters, u32* barrier, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const u32 ring_at = RING_AT + warp * PLACE_BYTES;

  // of this warp in a product: its first k-tile, and how many there are
  auto first_k = [&](const Product& p) {
    const int k_tiles = p.columns >> 6, per = (k_tiles + p.parts - 1) / p.parts;
    return (int)(blockIdx.x % p.parts) * per + (int)warp * p.per_warp;
  };
  auto tiles_at = [&](const Product& p, int k0) {
    const int k_tiles = p.columns >> 6, per = (k_tiles + p.parts - 1) / p.parts;
    const int end = min(((int)(blockIdx.x % p.parts) + 1) * per, k_tiles);
    return max(0, min(p.per_warp, end - k0));
  };
  auto fetch = [&](const Place& at, u32 place) {
    const u32 to = ring_at + place * (WARPS * PLACE_BYTES);
    if (at.product < PRODUCTS) {
      const Product& p = chain.products[at.product];
      const int k0 = first_k(p), mine = tiles_at(p, k0);
      const size_t tile = (size_t)((at.unit << p.gated) + at.second) * (p.columns >> 6) + k0;
      const uint4* w = p.weights + tile * WARP + lane;
#pragma unroll
      for (int slot = 0; slot < TILES; slot++)
        if (slot < mine) begin_copy(to + slot * 512 + lane * 16, w + slot * WARP);
      if ((int)lane < mine * GROUPS * 4) {
        begin_copy(to + TILES * 512 + lane * 16, (const uint4*)(p.scales + tile * GROUPS * 8) + lane);
#ifdef OFFSETS
        begin_copy(to + TILES * (512 + TILE_SCALES) + lane * 16, (const uint4*)(p.offsets + tile * GROUPS * 8) + lane);
#endif
      }
    }
    end_group();
  };

  Place next = {0, first_unit(chain.products[0]), 0};
  settle(chain, next);
  Place now = next;
#pragma unroll
  for (int place = 0; place < STAGES; place++) {
    fetch(next, place);
    if (next.product < PRODUCTS) go_on(chain, next);
  }
  let_next_start();
  fill_table(chain.products[0].code);
  wait_for_input();
  __syncthreads();
  const u32 lane_at = lane_address();
  __shared__ float warp_squares[WARPS][8];

  u32 place = 0, turn = 0;
  for (int product = 0; product < PRODUCTS; product++) {
    const Product& p = chain.products[product];
    const int k0 = first_k(p), mine = tiles_at(p, k0), stride = stride_of(p);
    if (product) wait_for_all_blocks(barrier);

    // activations of token g: columns 8 c to 8 c + 7 of both halves of each k-tile
    u32 input[TILES][8];
#pragma unroll
    for (int slot = 0; slot < TILES; slot++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const u16* at = p.x + (size_t)g * p.columns + (k0 + slot) * 64 + half * 32 + c * 8;
        const uint4 v = slot < mine && (int)g < count ? __ldcg((const uint4*)at) : make_uint4(0, 0, 0, 0);
        u32* to = &input[slot][half * 4];
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
      }
    if (p.norm) {
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
      const float by = rsqrtf(squares / p.columns + p.eps);
#pragma unroll
      for (int slot = 0; slot < TILES; slot++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const u16* at = p.norm + (k0 + slot) * 64 + half * 32 + c * 8;
          const uint4 v = slot < mine ? __ldg((const uint4*)at) : make_uint4(0, 0, 0, 0);
          const u32 factors[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
          for (int j = 0; j < 4; j++) {
            u32& word = input[slot][half * 4 + j];
            word = pack(low_of(word) * by * low_of(factors[j]), high_of(word) * by * high_of(factors[j]));
          }
        }
    }

    while (now.product == product) {
      const int unit = now.unit, buffer = (turn & 1) * 2;
      for (int pair = 0; pair <= p.gated; pair++) {
        float total[4] = {0.f, 0.f, 0.f, 0.f};
        const u32 from = ring_at + place * (WARPS * PLACE_BYTES);
        wait_for_groups<STAGES - 1>();
        __syncwarp();
#pragma unroll
        for (int slot = 0; slot < TILES; slot++) {
          if (slot >= mine) break;
          u32 words[4];
          load_shared(words, from + slot * 512 + lane * 16);
#pragma unroll
          for (int i = 0; i < GROUPS; i++) {
            const u32 scale_at = from + TILES * 512 + (slot * GROUPS + i) * 64 + g * 8;
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
        store_shared(partial_at(buffer + pair, warp, lane * 4), total);
        __syncwarp();  // the place is free
        fetch(next, place);
        if (next.product < PRODUCTS) go_on(chain, next);
        place = place + 1 == STAGES ? 0 : place + 1;
        go_on(chain, now);
      }
      // one barrier a turn: a buffer is written again only after the next one, which the warps that
      // read it now pass only when they have read
      __syncthreads();
      const int reader = threadIdx.x - (turn % (WARPS / 4)) * 128;
      turn++;
      if (reader < 0 || reader >= 128) continue;
      const int i = reader & 3, token = (reader >> 2 & 3) * 2 + (i & 1), row = (reader >> 4) + (i & 2) * 4;
      if (token >= count) continue;
      float sum[2] = {0.f, 0.f};
      for (int pair = 0; pair <= p.gated; pair++)
#pragma unroll
        for (int v = 0; v < WARPS; v++) sum[pair] += load_shared_float(partial_at(buffer + pair, v, reader));
      if (p.gated) {
        if (p.bias) {
          sum[0] += widen(p.bias[unit * 32 + row]);
          sum[1] += widen(p.bias[unit * 32 + 16 + row]);
        }
        p.y[(size_t)token * (p.rows >> 1) + unit * 16 + row] = narrow(silu(sum[0]) * sum[1]);
        continue;
      }
      const size_t at = (size_t)token * p.rows + unit * 16 + row;
      if (p.parts > 1) {
        __stcg(sums + (size_t)(blockIdx.x % p.parts) * p.rows * count + at, sum[0]);
        continue;
      }
      if (p.bias) sum[0] += widen(p.bias[unit * 16 + row]);
      if (p.residual) sum[0] += widen(__ldcg(p.residual + at));
      p.y[at] = narrow(sum[0]);
    }

    // the blocks of the other parts have had the same row tiles
    const int group = blockIdx.x / p.parts;
    if (p.parts == 1 || group >= stride) continue;
    if (last_to_arrive(counters + group, p.parts)) {
      const int units = (units_of(p) - group + stride - 1) / stride;
      for (int i = threadIdx.x; i < units * 16 * count; i += THREADS) {
        const int token = (i >> 4) % count, row = (group + i / (16 * count) * stride) * 16 + (i & 15);
        const size_t at = (size_t)token * p.rows + row;
        float value = 0.f;
        for (int part = 0; part < p.parts; part++) value += __ldcg(sums + (size_t)part * p.rows * count + at);
        if (p.bias) value += widen(p.bias[row]);
        if (p.residual) value += widen(__ldcg(p.residual + at));
        p.y[at] = narrow(value);
      }
    }
  }
}
