// What scoring on Hopper's tensor cores shares: 64 keys of 64 e4m3 numbers times columns of queries, both in shared memory.
//
// FENCED (0 or 1) is defined.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define HEADS 16
#define DIM 64
#define KEYS 64
#define TILE_BYTES 4096

// What copies wrote is seen by products behind a barrier.
#if FENCED
#define FENCE asm volatile("fence.proxy.async.shared::cta;" ::: "memory")
#else
#define FENCE
#endif

__device__ constexpr int ORDER[HEADS] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

__device__ __forceinline__ u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// Rows of 64 bytes, chunks of 16 exchanged by the row's second and third bit, 512 bytes from one 8 rows to the next.
__device__ __forceinline__ u32 swizzled(u32 row, u32 chunk) { return row * DIM + ((chunk ^ ((row >> 1) & 3)) << 4); }

__device__ __forceinline__ u64 described(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | ((u64)1 << 16) | ((u64)(512 >> 4) << 32) | ((u64)2 << 62);
}

__device__ __forceinline__ void copy_16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_4(u32 to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#define R8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
    "+f"(d[i + 6]), "+f"(d[i + 7])

template <int FURTHER>
__device__ __forceinline__ void multiply(float (&d)[64], u64 keys, u64 queries) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1;\n}\n"
        : R8(d, 0), R8(d, 8), R8(d, 16), R8(d, 24), R8(d, 32), R8(d, 40), R8(d, 48), R8(d, 56)
        : "l"(keys), "l"(queries), "n"(FURTHER));
}

template <int FURTHER>
__device__ __forceinline__ void multiply(float (&d)[32], u64 keys, u64 queries) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, p, 1, 1;\n}\n"
        : R8(d, 0), R8(d, 8), R8(d, 16), R8(d, 24)
        : "l"(keys), "l"(queries), "n"(FURTHER));
}

template <int HELD>
__device__ __forceinline__ void held(float (&d)[HELD]) {
#pragma unroll
    for (int i = 0; i < HELD; i++) asm volatile("" : "+f"(d[i])::"memory");
}

template <int HELD>
__device__ __forceinline__ void begin_product(float (&d)[HELD], u64 keys, u64 queries) {
    held(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    multiply<0>(d, keys, queries);
    multiply<1>(d, keys + 2, queries + 2);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING, int HELD>
__device__ __forceinline__ void products_wait(float (&d)[HELD]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
    held(d);
}
