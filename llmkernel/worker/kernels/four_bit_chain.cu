#include "four_bit.cuh"

// Several products one after the other for up to 8 rows of activations, in one kernel, so that weights
// are read all the time: while the blocks wait for each other between two products, the weights of the
// next one are on their way. There are as many blocks as fit at the same time, one to a multiprocessor.
//
// A product's columns are in parts of at most WARPS * TILES k-tiles. A block keeps to one part, whose
// k-tiles are its warps', `per_warp` to each, next to each other; it takes one row tile after the other
// (gated: pairs), a turn each. A warp has a ring of STAGES places of its own in shared memory, each for
// its k-tiles of one turn, and fills a place again as soon as it has used it, whatever product comes next.
// Its sums go to one of BUFFERS; four warps in turns add those of all warps up, LAG turns later, so that
// nobody waits for the slowest. With several parts each one's sums go to `sums` [parts, count, rows], and
// the block of the same row tiles that is done last adds them up, in order.

#define WARPS 16
#define TILES 4
#define BUFFERS 4
#define LAG 1
#define THREADS (WARPS * 32)
#define TILE_SCALES (GROUPS * 64)
#ifdef OFFSETS
#define PLACE_BYTES (TILES * (512 + 2 * TILE_SCALES))
#else
#define PLACE_BYTES (TILES * (512 + TILE_SCALES))
#endif
#define RING_AT (TABLE_AT + 256 * 256)
#define NEXT_PLACE (WARPS * PLACE_BYTES)

// One product, as chain.py writes it. `per_part` and `per_warp` count k-tiles, `stride` blocks of a part.
struct Product {
  const uint4* weights;
  const float2 *scales, *offsets;
  const float* code;
  const u16 *x, *norm, *bias, *residual;
  u16* y;
  float eps;
  int rows, columns, parts, per_part, per_warp, stride, gated;
};

struct Chain {
  Product products[PRODUCTS];
};

// What of a product is this warp's: `tiles` k-tiles from `k0` on of `units` row tiles or pairs, the first
// of which is `group`.
struct Share {
  int group, part, units, k0, tiles;
};

__device__ __forceinline__ Share share_of(const Product& p, int warp) {
  Share mine = {(int)blockIdx.x, 0, 0, 0, 0};
  if (p.parts > 1) {
    mine.group = blockIdx.x / p.parts;
    mine.part = blockIdx.x % p.parts;
  }
  const int units = (p.rows >> 4) >> p.gated;
  if (mine.group < min(p.stride, units)) mine.units = (units - mine.group + p.stride - 1) / p.stride;
  mine.k0 = mine.part * p.per_part + warp * p.per_warp;
  mine.tiles = max(0, min(p.per_warp, min((mine.part + 1) * p.per_part, p.columns >> 6) - mine.k0));
  return mine;
}

// What a warp fetches next. Tiles of a turn beyond `last` are the last one again, times zero.
struct Feed {
  int product, left;  // turns of this product
  int tile, hop, leap, last;
};

__device__ __forceinline__ void settle(const Chain& chain, Feed& feed, int warp) {
  for (; feed.product < PRODUCTS; feed.product++) {
    const Product& p = chain.products[feed.product];
    const Share mine = share_of(p, warp);
    if (mine.units == 0 || mine.tiles == 0) continue;
    feed.left = mine.units << p.gated;
    feed.hop = p.columns >> 6;
    feed.leap = ((p.stride << p.gated) - p.gated) * feed.hop;
    feed.tile = (mine.group << p.gated) * feed.hop + mine.k0;
    feed.last = mine.tiles - 1;
    if (!p.gated) feed.hop = feed.leap;
    return;
  }
}

// Where number `at` of 128 of a warp's sums lies: in the halves of 256 bytes that the table leaves.
__device__ __forceinline__ u32 partial_at(u32 buffer, u32 warp, u32 at) {
  return TABLE_AT + 128 + ((buffer * WARPS + warp) * 4 + (at >> 5)) * 256 + (at & 31) * 4;
}

// All blocks come here before any goes on. The sign of the count tells one time from the next, so that
// it never has to be reset: it flips when all have added theirs.
__device__ __forceinline__ void wait_for_all_blocks(u32* count, u32& sign) {
  __syncthreads();
  sign ^= 0x80000000u;
  if (threadIdx.x == 0) {
    add_release(count, blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u);
    while ((load_acquire(count) & 0x80000000u) != sign) {}
  }
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
four_bit_chain(const __grid_constant__ Chain chain, float* sums, u32* counters, u32* barrier, int count) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const u32 ring_at = RING_AT + warp * PLACE_BYTES;
  __shared__ unsigned long long written[BUFFERS], read[BUFFERS];
  const u32 written_at = shared_address(written), read_at = shared_address(read);
  if (threadIdx.x < BUFFERS) {
    make_barrier(written_at + threadIdx.x * 8, WARPS);
    make_barrier(read_at + threadIdx.x * 8, WARPS / BUFFERS);
  }

  Feed feed = {0, 0, 0, 0, 0, 0};
  auto fetch = [&](u32 to) {
    if (feed.product < PRODUCTS) {
      const Product& p = chain.products[feed.product];
      const uint4* w = p.weights + (size_t)feed.tile * WARP + lane;
#pragma unroll
      for (int slot = 0; slot < TILES; slot++)
        begin_copy(to + slot * 512 + lane * 16, w + min(slot, feed.last) * (int)WARP);
      if (lane < TILES * GROUPS * 4) {
        const int at = min((int)lane, feed.last * GROUPS * 4 + GROUPS * 4 - 1);
        begin_copy(to + TILES * 512 + lane * 16, (const uint4*)p.scales + (size_t)feed.tile * GROUPS * 4 + at);
#ifdef OFFSETS
        begin_copy(to + TILES * (512 + TILE_SCALES) + lane * 16,
                   (const uint4*)p.offsets + (size_t)feed.tile * GROUPS * 4 + at);
#endif
      }
      feed.tile += feed.left & 1 ? feed.leap : feed.hop;
      if (--feed.left == 0) {
        feed.product++;
        settle(chain, feed, warp);
      }
    }
    end_group();
  };
  settle(chain, feed, warp);
#pragma unroll 1
  for (int place = 0; place < STAGES; place++) fetch(ring_at + place * NEXT_PLACE);
  let_next_start();
  fill_table(code_of_lane(chain.products[0].code));
  wait_for_input();
  u32 sign = load_acquire(barrier) & 0x80000000u;
  __syncthreads();
  const u32 lane_at = lane_address();
  __shared__ float warp_squares[WARPS][8];

  u32 place_at = ring_at, turn = 0;
#pragma unroll 1
  for (int product = 0; product < PRODUCTS; product++) {
    const Product& p = chain.products[product];
    const Share mine = share_of(p, warp);
    if (product) wait_for_all_blocks(barrier, sign);

    // activations of token g: columns 8 c to 8 c + 7 of both halves of each k-tile
    u32 input[TILES][8];
#pragma unroll
    for (int slot = 0; slot < TILES; slot++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const u16* at = p.x + (size_t)g * p.columns + (mine.k0 + slot) * 64 + half * 32 + c * 8;
        const uint4 v = slot < mine.tiles && (int)g < count ? __ldcg((const uint4*)at) : make_uint4(0, 0, 0, 0);
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
          const u16* at = p.norm + (mine.k0 + slot) * 64 + half * 32 + c * 8;
          const uint4 v = slot < mine.tiles ? __ldg((const uint4*)at) : make_uint4(0, 0, 0, 0);
          const u32 factors[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
          for (int j = 0; j < 4; j++) {
            u32& word = input[slot][half * 4 + j];
            word = pack(low_of(word) * by * low_of(factors[j]), high_of(word) * by * high_of(factors[j]));
          }
        }
    }

    // Adds up what the warps have of row tile `number` of this block (gated: and the one before).
    auto add_up_row_tile = [&](int number, u32 of_turn) {
      const u32 buffer = of_turn % BUFFERS;
      if (warp / (WARPS / BUFFERS) != buffer || (p.gated && number % 2 == 0)) return;
      wait_at(written_at + buffer * 8, of_turn / BUFFERS & 1);
      const u32 at = threadIdx.x % 128;
      const int i = at & 3, token = (at >> 2 & 3) * 2 + (i & 1), row = (at >> 4) + (i & 2) * 4;
      const int unit = mine.group + (number >> p.gated) * p.stride;
      if (token < count) {
        float sum = 0.f;
#pragma unroll
        for (int v = 0; v < WARPS; v++) sum += load_shared_float(partial_at(buffer, v, at));
        if (p.gated) {
          float gate = 0.f;
#pragma unroll
          for (int v = 0; v < WARPS; v++) gate += load_shared_float(partial_at((buffer + BUFFERS - 1) % BUFFERS, v, at));
          if (p.bias) {
            gate += widen(p.bias[unit * 32 + row]);
            sum += widen(p.bias[unit * 32 + 16 + row]);
          }
          p.y[(size_t)token * (p.rows >> 1) + unit * 16 + row] = narrow(silu(gate) * sum);
        } else {
          const size_t to = (size_t)token * p.rows + unit * 16 + row;
          if (p.parts > 1) {
            __stcg(sums + (size_t)mine.part * p.rows * count + to, sum);
          } else {
            if (p.bias) sum += widen(p.bias[unit * 16 + row]);
            if (p.residual) sum += widen(__ldcg(p.residual + to));
            p.y[to] = narrow(sum);
          }
        }
      }
      __syncwarp();  // the buffers are free
      if (lane == 0) {
        arrive(read_at + buffer * 8);
        if (p.gated) arrive(read_at + (buffer + BUFFERS - 1) % BUFFERS * 8);
      }
    };

    const int turns = mine.units << p.gated;
#pragma unroll 1
    for (int number = 0; number < turns; number++, turn++) {
      float total[4] = {0.f, 0.f, 0.f, 0.f};
      if (mine.tiles) {
        wait_for_groups<STAGES - 1>();
        __syncwarp();
#pragma unroll
        for (int slot = 0; slot < TILES; slot++) {
          u32 words[4];
          load_shared(words, place_at + slot * 512 + lane * 16);
#pragma unroll
          for (int i = 0; i < GROUPS; i++) {
            const u32 scale_at = place_at + TILES * 512 + (slot * GROUPS + i) * 64 + g * 8;
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
        fetch(place_at);
        place_at += NEXT_PLACE;
        if (place_at >= RING_AT + STAGES * NEXT_PLACE) place_at = ring_at;
      }
      const u32 buffer = turn % BUFFERS;
      if (turn >= BUFFERS) wait_at(read_at + buffer * 8, turn / BUFFERS - 1 & 1);
      store_shared(partial_at(buffer, warp, lane * 4), total);
      __syncwarp();
      if (lane == 0) arrive(written_at + buffer * 8);
      if (number >= LAG) add_up_row_tile(number - LAG, turn - LAG);
    }
    for (int number = max(0, turns - LAG); number < turns; number++) add_up_row_tile(number, turn - turns + number);

    // the blocks of the other parts have had the same row tiles
    if (p.parts == 1 || mine.units == 0) continue;
    if (last_to_arrive(counters + mine.group, p.parts)) {
      for (int i = threadIdx.x; i < mine.units * 16 * count; i += THREADS) {
        const int token = (i >> 4) % count, row = (mine.group + i / (16 * count) * p.stride) * 16 + (i & 15);
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
