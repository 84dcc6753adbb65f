#include "device.cuh"

// Attention of one query a row whose keys and values are all written but its own: rotates its query and key
// heads, writes its key and value, and attends, a cluster of CLUSTER blocks to a row and key head. Their warps
// take turns at tiles of 16 tokens and hand their sums to the blocks that write them, in shared memory
// (distributed shared memory, CUDA programming guide, "Thread Block Clusters"; flash decoding, Dao et al. 2023).
// merged [rows][query heads, key heads, value heads][DIM]; cosines and sines [rows][DIM]; GROUP query heads to a
// key head. In what follows lane 4 g + c has of head or token g the chunks c, c + 4, ... of 8 dimensions each.
#define CHUNKS (DIM / 32)
#define WIDTH (GROUP * DIM)
#define SLICE (WIDTH / CLUSTER)
#define STRIDE (CLUSTER * WARPS)
#define NOTHING __uint_as_float(0xff800000u)

// Lies in shared memory: a barrier; of each warp of the cluster the sums that this block writes; then of each of
// them every head's largest score and total.
#define SUMS_OF(warp) (memory + 4 + (warp) * SLICE)
#define SEEN_BY(warp) (memory + 4 + WARPS * WIDTH + (warp) * 2 * GROUP)
#define SENT_BYTES (4 * WARPS * (WIDTH + 2 * GROUP * CLUSTER))

// A single block needs nothing of what clusters have.
#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

struct Head {
  uint4 chunk[CHUNKS];

  __device__ __forceinline__ u32 word(int j, int w) const {
    return w == 0 ? chunk[j].x : w == 1 ? chunk[j].y : w == 2 ? chunk[j].z : chunk[j].w;
  }
};

__device__ __forceinline__ Head no_head() {
  Head head;
#pragma unroll
  for (int j = 0; j < CHUNKS; j++) head.chunk[j] = make_uint4(0, 0, 0, 0);
  return head;
}

// A head or token at `at`, zeros where it is not there.
__device__ __forceinline__ Head head_at(const u16* at, bool there) {
  Head head = no_head();
#pragma unroll
  for (int j = 0; j < CHUNKS; j++)
    if (there) head.chunk[j] = *(const uint4*)(at + 32 * j);
  return head;
}

__device__ __forceinline__ Head either(bool first, const Head& a, const Head& b) {
  Head head;
#pragma unroll
  for (int j = 0; j < CHUNKS; j++)
    head.chunk[j] = make_uint4(first ? a.chunk[j].x : b.chunk[j].x, first ? a.chunk[j].y : b.chunk[j].y,
                               first ? a.chunk[j].z : b.chunk[j].z, first ? a.chunk[j].w : b.chunk[j].w);
  return head;
}

// Rotated, of NORMS RMS-normalised first, and rounded as it is stored. `norm` is that of chunk c.
__device__ __forceinline__ Head rotated(const Head& head, const Head& cosine, const Head& sine, const u16* norm,
                                        float eps) {
#ifdef NORMS
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < CHUNKS * 4; i++) {
    const float low = low_of(head.word(i / 4, i % 4)), high = high_of(head.word(i / 4, i % 4));
    squares += low * low + high * high;
  }
  squares += __shfl_xor_sync(~0u, squares, 1);
  squares += __shfl_xor_sync(~0u, squares, 2);
  const float by = rsqrtf(squares / DIM + eps);
  const Head factor = head_at(norm, true);
#endif
  Head result;
#pragma unroll
  for (int j = 0; j < CHUNKS / 2; j++) {
    const int k = j + CHUNKS / 2;
    u32 first[4], second[4];
#pragma unroll
    for (int w = 0; w < 4; w++) {
      float x[2] = {low_of(head.word(j, w)), high_of(head.word(j, w))};
      float y[2] = {low_of(head.word(k, w)), high_of(head.word(k, w))};
#ifdef NORMS
      x[0] *= by * low_of(factor.word(j, w)), x[1] *= by * high_of(factor.word(j, w));
      y[0] *= by * low_of(factor.word(k, w)), y[1] *= by * high_of(factor.word(k, w));
#endif
      first[w] = pack(x[0] * low_of(cosine.word(j, w)) - y[0] * low_of(sine.word(j, w)),
                      x[1] * high_of(cosine.word(j, w)) - y[1] * high_of(sine.word(j, w)));
      second[w] = pack(y[0] * low_of(cosine.word(k, w)) + x[0] * low_of(sine.word(k, w)),
                       y[1] * high_of(cosine.word(k, w)) + x[1] * high_of(sine.word(k, w)));
    }
    result.chunk[j] = make_uint4(first[0], first[1], first[2], first[3]);
    result.chunk[k] = make_uint4(second[0], second[1], second[2], second[3]);
  }
  return result;
}

// The tokens of a row that are attended to, in tiles: from `oldest` to `fresh`, the new one.
struct Row {
  const long long* table;
  int oldest, fresh;

  __device__ __forceinline__ bool has(int tile) const { return 16 * tile <= fresh; }

  __device__ __forceinline__ bool counts(int token) const { return token >= oldest && token <= fresh; }

  // The block that a tile lies in.
  __device__ __forceinline__ int block(int tile) const {
    return has(tile) ? (int)read_early(table + tile * 16 / BLOCK) : 0;
  }
};

// Keys or values of tokens g and g + 8 of a tile; those that are not there stay what they are. `at` is this lane's
// part of token g, a token is `width` wide.
__device__ __forceinline__ void read_tile(Head* two, const u16* at, int width, const bool* there) {
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < CHUNKS; j++)
      if (there[i]) two[i].chunk[j] = read_early((const uint4*)(at + (size_t)8 * i * width + 32 * j));
}

// Query times key, of tokens g, g, g + 8, g + 8 and heads 2 c, 2 c + 1, 2 c, 2 c + 1. Two sums take turns, since
// a product waits for the one before it.
__device__ __forceinline__ void multiply(float* score, const Head& query, const Head* keys) {
  float other[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
  for (int i = 0; i < 4; i++) score[i] = 0.f;
#pragma unroll
  for (int i = 0; i < 2 * CHUNKS; i++) {
    const int j = i / 2, w = i % 2 * 2;
    const u32 a[4] = {keys[0].word(j, w), keys[1].word(j, w), keys[0].word(j, w + 1), keys[1].word(j, w + 1)};
    mma(i % 2 ? other : score, a, query.word(j, w), query.word(j, w + 1));
  }
#pragma unroll
  for (int i = 0; i < 4; i++) score[i] += other[i];
}

__device__ __forceinline__ Head transposed(const Head& head) {
  Head result;
#pragma unroll
  for (int j = 0; j < CHUNKS; j++)
    result.chunk[j] = make_uint4(transposed(head.word(j, 0)), transposed(head.word(j, 1)),
                                 transposed(head.word(j, 2)), transposed(head.word(j, 3)));
  return result;
}

// What a warp has seen: of heads 2 c and 2 c + 1 the largest score, the sum of this lane's weights, and weighted
// values: numbers i and i + 2 of four belong to dimensions 2 i and 2 i + 2 behind 32 j + 4 h + 8 (g / 2) + g % 2.
struct Seen {
  float largest[2], total[2], sums[2 * CHUNKS][4];  // of the latter 2 j + h

  __device__ __forceinline__ Seen() {
    largest[0] = largest[1] = NOTHING, total[0] = total[1] = 0.f;
#pragma unroll
    for (int i = 0; i < 8 * CHUNKS; i++) sums[i / 4][i % 4] = 0.f;
  }

  // Scores of tokens g and g + 8, each of which counts or not, and the values across.
  __device__ __forceinline__ void add(float* score, const Head* across, const bool* counts, float scale,
                                      float softcap) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      score[i] *= scale;
      if (softcap) score[i] = softcap * (1.f - __fdividef(2.f, __expf(__fdividef(2.f * score[i], softcap)) + 1.f));
      if (!counts[i / 2]) score[i] = NOTHING;
    }
    float shrink[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float larger = fmaxf(fmaxf(score[e], score[2 + e]), largest[e]);
#pragma unroll
      for (int o = 4; o < 32; o <<= 1) larger = fmaxf(larger, __shfl_xor_sync(~0u, larger, o));
      shrink[e] = largest[e] == larger ? 1.f : __expf(largest[e] - larger);
      largest[e] = larger;
      score[e] = counts[0] ? __expf(score[e] - larger) : 0.f;
      score[2 + e] = counts[1] ? __expf(score[2 + e] - larger) : 0.f;
      total[e] = total[e] * shrink[e] + score[e] + score[2 + e];
    }
    const u32 first = transposed(pack(score[0], score[1])), second = transposed(pack(score[2], score[3]));
#pragma unroll
    for (int i = 0; i < 2 * CHUNKS; i++) {
      const int j = i / 2, w = i % 2 * 2;
      const u32 a[4] = {across[0].word(j, w), across[0].word(j, w + 1), across[1].word(j, w), across[1].word(j, w + 1)};
      sums[i][0] *= shrink[0], sums[i][1] *= shrink[1], sums[i][2] *= shrink[0], sums[i][3] *= shrink[1];
      mma(sums[i], a, first, second);
    }
  }

  // To the blocks that write the sums, as those of warp `from` of the cluster, four at a time: number 4 (8 j + g)
  // + q of a head is that of dimension_of. The largest score and the total go to every block.
  __device__ __forceinline__ void send(float* memory, int from, int g, int c) {
    const u32 barrier = shared_address(memory);
#pragma unroll
    for (int i = 0; i < 6; i++) total[i % 2] += __shfl_xor_sync(~0u, total[i % 2], 4 << i / 2);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int head = 2 * c + e;
      if (head >= GROUP) continue;
#pragma unroll
      for (int j = 0; j < CHUNKS; j++) {
        const float four[4] = {sums[2 * j][e], sums[2 * j][2 + e], sums[2 * j + 1][e], sums[2 * j + 1][2 + e]};
        const int number = head * DIM + 4 * (8 * j + g);
        store_in_cluster(shared_address(SUMS_OF(from) + number % SLICE), barrier, number / SLICE, four);
      }
      const float2 seen = make_float2(largest[e], total[e]);
      if (g < CLUSTER) store_in_cluster(shared_address(SEEN_BY(from) + 2 * head), barrier, g, seen);
    }
  }
};

// The dimension whose sum is a head's number `number`.
__device__ __forceinline__ int dimension_of(int number) {
  const int j = number / 32, g = number / 4 % 8, q = number % 4;
  return 32 * j + 8 * (g / 2) + g % 2 + 2 * q;
}

// The sums of all warps that the slice `part` of the heads has been sent, into `output`.
__device__ __forceinline__ void join(const float* memory, int part, const u16* sinks, u16* output) {
  for (int i = threadIdx.x; i < SLICE; i += WARPS * 32) {
    const int head = (part * SLICE + i) / DIM, number = (part * SLICE + i) % DIM;
    const float sink = sinks ? widen(sinks[head]) : NOTHING;
    float largest = sink, sum = 0.f;
#pragma unroll 8
    for (int w = 0; w < STRIDE; w++) largest = fmaxf(largest, SEEN_BY(w)[2 * head]);
    float total = __expf(sink - largest);
#pragma unroll 8
    for (int w = 0; w < STRIDE; w++) {
      const float by = __expf(SEEN_BY(w)[2 * head] - largest);
      sum += SUMS_OF(w)[i] * by, total += SEEN_BY(w)[2 * head + 1] * by;
    }
    output[head * DIM + dimension_of(number)] = narrow(__fdividef(sum, total));
  }
}

// The query and, where it is `own`, the new key. Twice or once, and not unrolled: instructions are fetched anew in
// each layer.
__device__ __forceinline__ void rotate(Head& query, Head& key, bool own, const u16* cosines, const u16* sines,
                                       const u16* query_norm, const u16* key_norm, float eps) {
  const Head cosine = head_at(cosines, true), sine = head_at(sines, true);
#pragma unroll 1
  for (int turn = own; turn >= 0; turn--) {
    const Head turned = rotated(either(turn, key, query), cosine, sine, turn ? key_norm : query_norm, eps);
    key = either(turn, turned, key), query = either(turn, query, turned);
  }
}

// What is read before wait_for_input must not be of a kernel that may still run: of one of those that start early,
// however far back, or of the last one before them, whose writes may be on their way. Old keys and values are of
// earlier steps, since each layer has its own and no row sees what another one writes here; lengths, slots, tables
// and places are copied to the device before the step; and each step begins with a kernel that starts when all
// before it have ended, its embedding. But `merged` is of the kernel just before, and cosines and sines are of this
// step: they are read after the wait, the latter from the L2, where they are brought before it.
extern "C" __global__ void CLUSTERED __launch_bounds__(WARPS * 32, 1)
cluster_attention(const u16* merged, const u16* cosines, const u16* sines, const u16* __restrict__ query_norm,
                  const u16* __restrict__ key_norm, float eps, const long long* places, const long long* tables,
                  const long long* slots, const long long* lengths, const u16* __restrict__ sinks, u16* keys,
                  u16* values, u16* output, int table_stride, int kv_heads, float scale, float softcap, int window) {
  float* const memory = dynamic_shared();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int of_row = blockIdx.y / kv_heads, head = blockIdx.y % kv_heads, width = kv_heads * DIM;
  const int number = blockIdx.x * WARPS + warp;  // of the warp in its cluster
  if (threadIdx.x == 0) expect_stores(shared_address(memory), SENT_BYTES);
  arrive_in_cluster();

  const int fresh = (int)read_early(lengths + of_row) - 1, oldest = window ? max(fresh + 1 - window, 0) : 0;
  const Row row = {tables + read_early(slots + of_row) * table_stride, oldest, fresh};
  const bool owns = (fresh / 16 - oldest / 16) % STRIDE == number;  // the tile of the new token
  const size_t new_place = owns ? (size_t)read_early(places + of_row) : 0;
  cosines += (size_t)of_row * DIM, sines += (size_t)of_row * DIM, merged += (size_t)of_row * (GROUP + 2) * width;
  if (sinks) sinks += head * GROUP;

  // A tile is on its way while the one before it is computed; the block of the next one is known by then.
  int tile = oldest / 16 + number, following = 0;
  Head query = no_head(), key[2] = {query, query}, value[2] = {query, query};
  auto read = [&](int block, int end) {
    const int token = 16 * tile + g;
    const bool there[2] = {row.counts(token) && token < end, row.counts(token + 8) && token + 8 < end};
    const size_t at = ((size_t)block * BLOCK + token % BLOCK) * width + head * DIM + 8 * c;
    read_tile(key, keys + at, width, there);
    read_tile(value, values + at, width, there);
  };

  auto begin_early = [&] {
    const int first = row.block(tile);
    following = row.block(tile + STRIDE);
    read(first, fresh);
    const int line = 64 * threadIdx.x;  // 128 bytes
    if (line < DIM) bring_near(cosines + line), bring_near(sines + line);
#ifdef NORMS
    if (line < DIM) bring_near(query_norm + line), bring_near(key_norm + line);
#endif
    if (sinks) bring_near(sinks);
  };
  auto begin = [&] {
    begin_early();
    wait_in_cluster();  // the others have started: they may be sent to
    wait_for_input();

    const u16* const new_key = merged + (GROUP * kv_heads + head) * DIM + 8 * c;
    const bool has_new = owns && g == fresh % 8;
    query = head_at(merged + (head * GROUP + g) * DIM + 8 * c, g < GROUP);
    Head own_key = head_at(new_key, has_new), own_value = head_at(new_key + width, has_new);
    rotate(query, own_key, owns, cosines + 8 * c, sines + 8 * c, query_norm + 8 * c, key_norm + 8 * c, eps);
    if (!has_new) return;
    const size_t at = (new_place * kv_heads + head) * DIM + 8 * c;
#pragma unroll
    for (int j = 0; j < CHUNKS; j++)
      *(uint4*)(keys + at + 32 * j) = own_key.chunk[j], *(uint4*)(values + at + 32 * j) = own_value.chunk[j];
    // if it is of a later tile, this thread reads there what it has just written
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (16 * tile + 8 * i + g == fresh) key[i] = own_key, value[i] = own_value;
  };

  begin();
  let_next_start();  // no sooner: it would take what the first loads need
  Seen seen;
#pragma unroll 1
  while (row.has(tile)) {
    const int token = 16 * tile + g;
    const bool counts[2] = {row.counts(token), row.counts(token + 8)};
    float score[4];
    multiply(score, query, key);
    const Head across[2] = {transposed(value[0]), transposed(value[1])};
    tile += STRIDE;
    // the registers of keys and values are free: the products have them
    if (row.has(tile)) {
      read(following, fresh + 1);
      following = row.block(tile + STRIDE);
    }
    seen.add(score, across, counts, scale, softcap);
  }
  seen.send(memory, number, g, c);
  wait_for_stores(shared_address(memory));
  join(memory, blockIdx.x, sinks, output + (size_t)blockIdx.y * WIDTH);
}
