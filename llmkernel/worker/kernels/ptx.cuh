// The instructions that C++ has no words for, a function each; tests/model/on_host/cuda.h has the same
// functions for a processor, where the tests run these kernels without a GPU.
// No header is included: numbers of 16 bits are handled as such, BF16 says of which kind.
// Addresses in shared memory are numbers of bytes.

typedef unsigned int u32;
typedef unsigned short u16;

#ifdef BF16
#define PAIR_TYPE "bf16x2"
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#else
#define PAIR_TYPE "f16x2"
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
#endif

// Before this a kernel may read only what no kernel writes: weights. After it, all that came before
// in the stream is done.
__device__ __forceinline__ void wait_for_input() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel may start, where there is room for it.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ u32 pack(float low, float high) {
  u32 pair;
  asm("cvt.rn." PAIR_TYPE ".f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ float widen(u16 value) {
#ifdef BF16
  return __uint_as_float((u32)value << 16);
#else
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
  return wide;
#endif
}

// The two numbers of a pair of float16, whatever activations are.
__device__ __forceinline__ float2 both_halves(u32 pair) {
  float2 v;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}"
      : "=f"(v.x), "=f"(v.y) : "r"(pair));
  return v;
}

// Both halves of a pair times those of another, plus those of a third.
__device__ __forceinline__ u32 pair_fma(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn." PAIR_TYPE " %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// d += a * b, by a warp: 16 rows, 8 columns, 16 in between
__device__ __forceinline__ void mma(float* d, const u32* a, u32 b0, u32 b1) {
  asm(MMA "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Of 8 rows of 8 numbers, of which a lane has two neighbours of a row, the columns.
__device__ __forceinline__ u32 transposed(u32 pair) {
  u32 result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// Volatile keeps loads of weights ahead of what uses them.
__device__ __forceinline__ uint4 stream_in(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}

__device__ __forceinline__ u32 stream_in(const u32* at) {
  u32 v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(at));
  return v;
}

__device__ __forceinline__ float2 stream_in(const float2* at) {
  float2 v;
  asm volatile("ld.global.nc.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at));
  return v;
}

// Of what is read once a step: it leaves the L2 before what the next layers read again.
__device__ __forceinline__ unsigned long long first_to_leave() {
  unsigned long long policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// As stream_in, of what is read once a step.
__device__ __forceinline__ uint4 stream_once(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at), "l"(first_to_leave()));
  return v;
}

__device__ __forceinline__ u32 stream_once(const u32* at) {
  u32 v;
  asm volatile("ld.global.nc.L2::cache_hint.u32 %0, [%1], %2;" : "=r"(v) : "l"(at), "l"(first_to_leave()));
  return v;
}

__device__ __forceinline__ float2 stream_once(const float2* at) {
  float2 v;
  asm volatile("ld.global.nc.L2::cache_hint.v2.f32 {%0,%1}, [%2], %3;"
      : "=f"(v.x), "=f"(v.y) : "l"(at), "l"(first_to_leave()));
  return v;
}

// Brings 16 bytes to the L1.
__device__ __forceinline__ void look_at(const uint4* at) {
  asm volatile("{\n.reg .u32 a, b, c, d;\nld.global.nc.v4.u32 {a, b, c, d}, [%0];\n}" :: "l"(at));
}

// What an earlier kernel has written, before wait_for_input: past the L1, which may still have what was there
// before that. Volatile keeps it there.
__device__ __forceinline__ uint4 read_early(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
  return v;
}

__device__ __forceinline__ long long read_early(const long long* at) {
  long long value;
  asm volatile("ld.global.cg.s64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
  return value;
}

// To the L2, where every kernel sees what others write: allowed at any time.
__device__ __forceinline__ void bring_near(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" :: "l"(at));
}

// The memory that a launch asks for.
__device__ __forceinline__ float* dynamic_shared() {
  extern __shared__ float memory[];
  return memory;
}

__device__ __forceinline__ u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }

__device__ __forceinline__ void store_shared(u32 at, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" :: "r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

__device__ __forceinline__ void store_shared(u32 at, const float* v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" :: "r"(at), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
}

__device__ __forceinline__ u32 load_shared_word(u32 at) {
  u32 value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(at) : "memory");
  return value;
}

__device__ __forceinline__ float load_shared_float(u32 at) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(at) : "memory");
  return value;
}

__device__ __forceinline__ float2 load_shared_pair(u32 at) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
  return v;
}

// Not marked as a memory access: the compiler may move it anywhere between barriers of its own.
__device__ __forceinline__ void load_shared(u32* to, u32 at) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}

// What lies BASE behind `at` and is written once, before a barrier: may be moved, and dropped.
template <u32 BASE>
__device__ __forceinline__ u32 look_up(u32 at) {
  u32 value;
  asm("ld.shared.u32 %0, [%1 + %2];" : "=r"(value) : "r"(at), "n"(BASE));
  return value;
}

// 4 * lane, which the compiler knows nothing else about, so that look-ups stay behind it.
__device__ __forceinline__ u32 lane_address() {
  u32 address;
  asm volatile("mov.u32 %0, %1;" : "=r"(address) : "r"((threadIdx.x & 31) * 4) : "memory");
  return address;
}

// 16 bytes from global to shared memory, begun and not waited for.
__device__ __forceinline__ void begin_copy(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
}

// The same of what is read once a step.
__device__ __forceinline__ void begin_copy_once(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;"
      :: "r"(to), "l"(from), "l"(first_to_leave()) : "memory");
}

// Copies that were begun since the last call are a group; a thread waits until at most MOST are under way.
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int MOST>
__device__ __forceinline__ void wait_for_groups() {
  asm volatile("cp.async.wait_group %0;" :: "n"(MOST) : "memory");
}

// Barriers in shared memory that count arrivals (PTX ISA, "mbarrier"); 8 bytes.
__device__ __forceinline__ void make_barrier(u32 barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" :: "r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" :: "r"(barrier) : "memory");
}

// This thread arrives as soon as its copies are there.
__device__ __forceinline__ void arrive_with_copies(u32 barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" :: "r"(barrier) : "memory");
}

// Wait for the end of the phase of a parity.
__device__ __forceinline__ void wait_at(u32 barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
#if __CUDA_ARCH__ >= 900
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
#else
      "mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
#endif
      "@!done bra again;\n}"
      :: "r"(barrier), "r"(parity) : "memory");
}

// Blocks of a cluster are on neighbouring multiprocessors (9.0 and up). They start together, and each may store
// into the shared memory of another one, or its own, once all threads of the cluster have arrived. A barrier there
// counts the bytes: who has waited at it sees what was stored, and nobody else needs to wait (PTX ISA, "st.async").
// Of a single block all of that is plain.
#if CLUSTER > 1
__device__ __forceinline__ void arrive_in_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ __forceinline__ void wait_in_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Before a thread arrives; by one of the block.
__device__ __forceinline__ void expect_stores(u32 barrier, u32 bytes) {
  make_barrier(barrier, 1);
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ u32 in_block_of_cluster(u32 at, u32 block) {
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(block));
  return there;
}

// To the addresses of another block that `at` and `barrier` are in this one.
__device__ __forceinline__ void store_in_cluster(u32 at, u32 barrier, u32 block, const float* v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];"
      :: "r"(in_block_of_cluster(at, block)), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]),
         "r"(in_block_of_cluster(barrier, block)) : "memory");
}

__device__ __forceinline__ void store_in_cluster(u32 at, u32 barrier, u32 block, float2 v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];"
      :: "r"(in_block_of_cluster(at, block)), "f"(v.x), "f"(v.y), "r"(in_block_of_cluster(barrier, block)) : "memory");
}

__device__ __forceinline__ void wait_for_stores(u32 barrier) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], 0;\n"
      "@!done bra again;\n}"
      :: "r"(barrier) : "memory");
}
#else
__device__ __forceinline__ void arrive_in_cluster() {}
__device__ __forceinline__ void wait_in_cluster() {}
__device__ __forceinline__ void expect_stores(u32, u32) {}
__device__ __forceinline__ void store_in_cluster(u32 at, u32, u32, const float* v) { store_shared(at, v); }
__device__ __forceinline__ void store_in_cluster(u32 at, u32, u32, float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" :: "r"(at), "f"(v.x), "f"(v.y) : "memory");
}
__device__ __forceinline__ void wait_for_stores(u32) { __syncthreads(); }
#endif
