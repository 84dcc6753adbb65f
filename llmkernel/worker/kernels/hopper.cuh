// Instructions that only Hopper has (9.0a), a function each; as ptx.cuh.

typedef unsigned long long u64;

#ifdef BF16
#define WIDE_KIND "f32.bf16.bf16 "
#else
#define WIDE_KIND "f32.f16.f16 "
#endif

// Barriers that were made are there for copies in bulk, too.
__device__ __forceinline__ void barriers_are_made() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// This thread arrives, and the phase does not end before so many bytes have come.
__device__ __forceinline__ void arrive_and_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}

// A multiple of 16 bytes from global to shared memory, by the copy engine, which tells the barrier.
__device__ __forceinline__ void begin_bulk_copy(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      :: "r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

// Where 8 tokens of one half of a step begin at `at`, the other half `tokens` * 16 bytes on, the next 8
// tokens 128: a matrix descriptor without swizzling, k fastest (PTX ISA, "Matrix Descriptor Format").
__device__ __forceinline__ u64 tokens_at(u32 at, u32 tokens) {
  return (u64)((at & 0x3ffff) >> 4) | (u64)(tokens * 16 >> 4) << 16 | (u64)(128 >> 4) << 32;
}

__device__ __forceinline__ void registers_ready() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void send() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int MOST>
__device__ __forceinline__ void wait_until_at_most() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(MOST) : "memory");
}

#define SUM4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUM16(i) SUM4(i), SUM4(i + 4), SUM4(i + 8), SUM4(i + 12)
#define FRAGMENT "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)

// d += a * b of 64 rows and 8 * EIGHTS tokens, begun and not waited for (PTX ISA, "wgmma.mma_async").
template <int EIGHTS>
__device__ __forceinline__ void begin_wide_mma(float* d, const u32* a, u64 b) {
  if constexpr (EIGHTS == 2)
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k16." WIDE_KIND
        "{%0,%1,%2,%3,%4,%5,%6,%7},{%8,%9,%10,%11},%12,1,1,1,0;" : SUM4(0), SUM4(4) : FRAGMENT);
  if constexpr (EIGHTS == 3)
    asm volatile("wgmma.mma_async.sync.aligned.m64n24k16." WIDE_KIND
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11},{%12,%13,%14,%15},%16,1,1,1,0;"
        : SUM4(0), SUM4(4), SUM4(8) : FRAGMENT);
  if constexpr (EIGHTS == 4)
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16." WIDE_KIND
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15},{%16,%17,%18,%19},%20,1,1,1,0;"
        : SUM16(0) : FRAGMENT);
  if constexpr (EIGHTS == 6)
    asm volatile("wgmma.mma_async.sync.aligned.m64n48k16." WIDE_KIND
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23},"
        "{%24,%25,%26,%27},%28,1,1,1,0;"
        : SUM16(0), SUM4(16), SUM4(20) : FRAGMENT);
  if constexpr (EIGHTS == 8)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16." WIDE_KIND
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
        "%24,%25,%26,%27,%28,%29,%30,%31},{%32,%33,%34,%35},%36,1,1,1,0;"
        : SUM16(0), SUM16(16) : FRAGMENT);
}
