#include "device.cuh"

// Attention of one query a row whose keys and values are all written but its own: rotates its query and key
// heads, writes its key and value, and attends, a cluster of CLUSTER blocks to a row and key head. Their warps
// take turns at tiles of 16 tokens; each block hands its sums to those that write them, in shared memory
// (distributed shared memory, CUDA programming guide, "Thread Block Clusters"; flash decoding, Dao et al. 2023).
// merged [rows][query heads, key heads, value heads][DIM]; cosines and sines [rows][DIM]; GROUP query heads to a
// key head. In what follows lane 4 g + c has of head or token g the chunks c, c + 4, ... of 8 dimensions each.
#define CHUNKS (DIM / 32)
#define WIDTH (GROUP * DIM)
#define SLICE (WIDTH / CLUSTER)
#define NOTHING __uint_as_float(0xff800000u)

// Lies in shared memory: the sums of each warp, its largest scores and its totals; then what each block sends.
#define SUMS_OF(warp, head) (memory + ((warp) * GROUP + (head)) * (DIM + 2))
#define SENT_BY(block) (memory + WARPS * GROUP * (DIM + 2) + (block) * (SLICE + 2 * GROUP))

struct Head {
  uint4 chunk[CHUNKS];

  __device__ __forceinline__ u32 word(int j, int w) const {
    return w == 0 ? chunk[j].x : w == 1 ? chunk[j].y : w == 2 ? chunk[j].z : chunk[j].w;
  }
};

// A head or token at `at`, zeros where it is not there.
__device__ __forceinline__ Head head_at(const u16* at, bool there) {
  Head head;
#pragma unroll
  for (int j = 0; j < CHUNKS; j++) {
    head.chunk[j] = make_uint4(0, 0, 0, 0);
    if (there) head.chunk[j] = *(const uint4*)(at + 32 * j);
  }
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

// What a warp has seen: of heads 2 c and 2 c + 1 the largest score, the sum of this lane's weights, and of the
// weighted values the dimensions that write_to names.
struct Seen {
  float largest[2], total[2], sums[2 * CHUNKS][4];

  __device__ __forceinline__ Seen() {
    largest[0] = largest[1] = NOTHING, total[0] = total[1] = 0.f;
#pragma unroll
    for (int i = 0; i < 8 * CHUNKS; i++) sums[i / 4][i % 4] = 0.f;
  }

  // 16 tokens: keys and values of tokens g and g + 8, each of which counts or not.
  __device__ __forceinline__ void add(const Head& query, const Head* keys, const Head* values, const bool* counts,
                                      float scale, float softcap) {
    float score[4] = {0.f, 0.f, 0.f, 0.f};  // tokens g, g, g + 8, g + 8
#pragma unroll
    for (int i = 0; i < 2 * CHUNKS; i++) {
      const int j = i / 2, w = i % 2 * 2;
      const u32 a[4] = {keys[0].word(j, w), keys[1].word(j, w), keys[0].word(j, w + 1), keys[1].word(j, w + 1)};
      mma(score, a, query.word(j, w), query.word(j, w + 1));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      score[i] *= scale;
      if (softcap) score[i] = softcap * (1.f - 2.f / (__expf(2.f * score[i] / softcap) + 1.f));
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
      const u32 a[4] = {transposed(values[0].word(j, w)), transposed(values[0].word(j, w + 1)),
                        transposed(values[1].word(j, w)), transposed(values[1].word(j, w + 1))};
      sums[i][0] *= shrink[0], sums[i][1] *= shrink[1], sums[i][2] *= shrink[0], sums[i][3] *= shrink[1];
      mma(sums[i], a, first, second);
    }
  }

  __device__ __forceinline__ void write_to(float* memory, int warp, int g, int c) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
#pragma unroll
      for (int o = 4; o < 32; o <<= 1) total[e] += __shfl_xor_sync(~0u, total[e], o);
      float* const to = SUMS_OF(warp, 2 * c + e);
      if (2 * c + e >= GROUP) continue;
#pragma unroll
      for (int i = 0; i < 2 * CHUNKS; i++) {
        const int dim = 32 * (i / 2) + 4 * (i % 2) + 8 * (g / 2) + g % 2;
        to[dim] = sums[i][e], to[dim + 2] = sums[i][2 + e];
      }
      if (g == 0) to[DIM] = largest[e], to[DIM + 1] = total[e];
    }
  }
};

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(WARPS * 32)
cluster_attention(const u16* merged, const u16* cosines, const u16* sines, const u16* __restrict__ query_norm,
                  const u16* __restrict__ key_norm, float eps, const long long* places, const long long* tables,
                  const long long* slots, const long long* lengths, const u16* __restrict__ sinks, u16* keys,
                  u16* values, u16* output, int table_stride, int kv_heads, float scale, float softcap, int window) {
  float* const memory = dynamic_shared();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
  const int part = blockIdx.x, row = blockIdx.y / kv_heads, head = blockIdx.y % kv_heads;
  arrive_in_cluster();
  let_next_start();
  wait_for_input();

  const int fresh = (int)lengths[row] - 1, oldest = window ? max(fresh + 1 - window, 0) : 0;
  const long long* const table = tables + slots[row] * table_stride;
  const bool last = part == CLUSTER - 1 && warp == WARPS - 1;  // it has the new token, too
  const u16* const heads = merged + (size_t)row * (GROUP + 2) * kv_heads * DIM + 8 * c;
  const u16* const new_key = heads + (GROUP * kv_heads + head) * DIM;
  Head query = head_at(heads + (head * GROUP + g) * DIM, g < GROUP);
  Head own_key = head_at(new_key, last && g == 0), own_value = head_at(new_key + kv_heads * DIM, last && g == 0);
  const Head cosine = head_at(cosines + (size_t)row * DIM + 8 * c, true);
  const Head sine = head_at(sines + (size_t)row * DIM + 8 * c, true);
  // twice or once, and not unrolled: instructions are fetched anew in each layer
#pragma unroll 1
  for (int turn = last; turn >= 0; turn--) {
    const Head turned = rotated(turn ? own_key : query, cosine, sine, (turn ? key_norm : query_norm) + 8 * c, eps);
    if (turn)
      own_key = turned;
    else
      query = turned;
  }

  Seen seen;
  int tile = oldest / 16 + part * WARPS + warp;
  // the new token is token 0 of a tile of its own
  for (bool own = last; own || 16 * tile < fresh; own = false) {
    Head key[2], value[2];
    bool counts[2] = {g == 0, false};
    if (own) {
      key[0] = own_key, value[0] = own_value;
      key[1] = value[1] = head_at(new_key, false);
      const size_t at = ((size_t)places[row] * kv_heads + head) * DIM + 8 * c;
#pragma unroll
      for (int j = 0; j < CHUNKS; j++)
        if (g == 0) *(uint4*)(keys + at + 32 * j) = own_key.chunk[j], *(uint4*)(values + at + 32 * j) = own_value.chunk[j];
    } else {
      const size_t place = table[tile * 16 / BLOCK] * BLOCK + tile * 16 % BLOCK;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int token = 16 * tile + 8 * i + g;
        const size_t at = ((place + 8 * i + g) * kv_heads + head) * DIM + 8 * c;
        counts[i] = token >= oldest && token < fresh;
        key[i] = head_at(keys + at, counts[i]);
        value[i] = head_at(values + at, counts[i]);
      }
      tile += CLUSTER * WARPS;
    }
    seen.add(query, key, value, counts, scale, softcap);
  }
  seen.write_to(memory, warp, g, c);
  __syncthreads();
  wait_in_cluster();  // the others have started

  // each block sends its sums of a slice to the block of that slice, and to all its largest scores and totals
  for (int i = threadIdx.x; i < WIDTH + 2 * GROUP; i += WARPS * 32) {
    const int score = i - WIDTH, of = score < 0 ? i / DIM : score % GROUP, d = score < 0 ? i % DIM : DIM + 1;
    float largest = NOTHING, sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, SUMS_OF(w, of)[DIM]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float theirs = SUMS_OF(w, of)[DIM];
      if (theirs != NOTHING) sum += SUMS_OF(w, of)[d] * __expf(theirs - largest);
    }
    if (score < 0)
      store_in_cluster(shared_address(SENT_BY(part) + i % SLICE), i / SLICE, sum);
    else
      for (int block = 0; block < CLUSTER; block++)
        store_in_cluster(shared_address(SENT_BY(part) + SLICE + score), block, score < GROUP ? largest : sum);
  }
  arrive_in_cluster();
  wait_in_cluster();

  for (int i = threadIdx.x; i < SLICE; i += WARPS * 32) {
    const int element = part * SLICE + i, of = element / DIM;
    const float sink = sinks ? widen(sinks[head * GROUP + of]) : NOTHING;
    float largest = sink, sum = 0.f;
#pragma unroll
    for (int block = 0; block < CLUSTER; block++) largest = fmaxf(largest, SENT_BY(block)[SLICE + of]);
    float total = sinks ? __expf(sink - largest) : 0.f;
#pragma unroll
    for (int block = 0; block < CLUSTER; block++) {
      const float* const sent = SENT_BY(block);
      const float theirs = sent[SLICE + of], by = theirs == NOTHING ? 0.f : __expf(theirs - largest);
      sum += sent[i] * by, total += sent[SLICE + GROUP + of] * by;
    }
    output[(size_t)blockIdx.y * WIDTH + element] = narrow(sum / total);
  }
}
