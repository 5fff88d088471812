// Index scores of e4m3 queries and keys on Hopper's tensor cores: stored, or one bit a place that says which reach a
// gate. Sixteen heads of 64 dimensions. The same bits as jit/tile.py: products of 32 dimensions and then 32, heads added
// by fused multiply-adds in the order of ORDER.
//
// One program is one warp group with 16 queries in two halves, whose columns lie in shared memory all along. It walks
// over keys, 64 a tile and TILES tiles a step: while the tensor cores multiply keys with one half, the threads add up
// heads of the other. The second key of a pair (2p, 2p + 1) lies 8 rows behind the first, so that a thread holds
// neighbours.
//
// Compiled behind hopper.cu, with STEP, MARK (0 or 1), TILES, STAGES (a multiple of TILES) and LESS
// (0 to 16) defined.

#define THREADS 128
#define QUERIES 16
#define HALF 8
#define COLUMNS 128
#define HELD 64

__device__ __forceinline__ int place_of(int number) {
#if STEP > 1
    return number * STEP + (int)((((u32)number * 2654435761u) >> 16) % STEP);
#else
    return number;
#endif
}

struct Given {
    const u8* keys;  // from this thread's chunk on
    const float* scales;
    const int* line;
    int key_stride, last;
};

// The slots of this thread's two keys of each of the next tiles.
__device__ __forceinline__ void look_up(int2 (&slot)[TILES], const Given& given, int number) {
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        slot[i].x = __ldg(given.line + (u32)min(place_of(number + i * KEYS), given.last));
        slot[i].y = __ldg(given.line + (u32)min(place_of(number + i * KEYS + 1), given.last));
    }
}

__device__ __forceinline__ void fill(const Given& given, const int2 (&slot)[TILES], u32 tile, u32 scale, u32 chunk) {
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        const u8* first = given.keys + (long long)slot[i].x * given.key_stride;
        const u8* second = given.keys + (long long)slot[i].y * given.key_stride;
        const u32 to = tile + i * TILE_BYTES;
        copy_16(to, first);
        copy_16(to + 512, second);
        if (chunk < 2) {
            const float* one = given.scales + (chunk ? slot[i].y : slot[i].x);
            copy_4(scale + i * KEYS * 4, one);
        }
    }
    copies_end();
}

// A positive part, of heads from LESS on twice it: units for comparing take some of the work of those for adding. Either
// way times its weight, or half of that, has the same bits.
__device__ __forceinline__ float positive(float dot, int head) {
    if (head >= LESS) return __fadd_rn(dot, fabsf(dot));
    float part;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(part) : "f"(dot));
    return part;
}

struct Query {
    const int* last_of;  // of this run of queries in shared memory, -1 outside it
    float gate[4];
    u32 lane;
};

// Adds up one half's heads over two keys, and leaves the scores or their bits at ``to``, 4 queries ``apart``.
template <int SIDE>
__device__ __forceinline__ void leave(
    const float (&d)[HELD], const float (&weight)[2][32], float2 scale, const Query& query, bool whole, int number,
    char* to, long long apart) {
    float2 sum[2];
#pragma unroll
    for (int g = 0; g < 2; g++) {
        sum[g] = make_float2(0.f, 0.f);
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            const int head = ORDER[i], at = (g * 8 + head / 2) * 4 + head % 2;
            const float first = d[at], second = d[at + 2], by = weight[SIDE][g * HEADS + head];
            sum[g].x = __fmaf_rn(positive(first, head), by, sum[g].x);
            sum[g].y = __fmaf_rn(positive(second, head), by, sum[g].y);
        }
        sum[g].x = __fmul_rn(sum[g].x, scale.x);
        sum[g].y = __fmul_rn(sum[g].y, scale.y);
    }
    const int* last = query.last_of + SIDE * HALF + (query.lane & 3);
#if MARK
    u32 even = 0, odd = 0;
#pragma unroll
    for (int g = 0; g < 2; g++) {
        bool one = !(sum[g].x < query.gate[SIDE * 2 + g]), other = !(sum[g].y < query.gate[SIDE * 2 + g]);
        if (!whole) {
            one = one && place_of(number) <= last[g * 4];
            other = other && place_of(number + 1) <= last[g * 4];
        }
        const u32 ones = __ballot_sync(0xFFFFFFFF, one), others = __ballot_sync(0xFFFFFFFF, other);
        even = query.lane & (g * 4) ? ones : g ? even : ones;
        odd = query.lane & (g * 4) ? others : g ? odd : others;
    }
    // Each of lanes 0 to 7 gathers every fourth bit of both for one query.
    u32 word = ((even >> (query.lane & 3)) & 0x11111111) | (((odd >> (query.lane & 3)) & 0x11111111) << 1);
    word = (word | (word >> 2)) & 0x0F0F0F0F;
    word = (word | (word >> 4)) & 0x00FF00FF;
    word = word | (word >> 8);
    if (query.lane < HALF && (whole || query.last_of[SIDE * HALF + query.lane] >= 0)) {
        *(unsigned short*)(to + SIDE * 2 * apart) = (unsigned short)word;
    }
#else
    to += SIDE * 2 * apart;
#pragma unroll
    for (int g = 0; g < 2; g++) {
        if (whole) {
            __stcs((float2*)to, sum[g]);
        } else {
            if (place_of(number) <= last[g * 4]) ((float*)to)[0] = sum[g].x;
            if (place_of(number + 1) <= last[g * 4]) ((float*)to)[1] = sum[g].y;
        }
        to += apart;
    }
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) score_keys(
    const u8* __restrict__ q, const float* __restrict__ weights, const u8* __restrict__ keys,
    const float* __restrict__ scales, const int* __restrict__ table, const int* __restrict__ rows,
    const int* __restrict__ positions, const float* __restrict__ gates, void* result, int tokens, int topk,
    int table_stride, int key_stride, int result_stride) {
    __shared__ __align__(1024) u8 asked[2 * COLUMNS * DIM];
    __shared__ __align__(1024) u8 tiles[STAGES * TILE_BYTES];
    __shared__ __align__(16) float tile_scales[STAGES * KEYS];
    __shared__ int row_of[QUERIES], last_of[QUERIES], run_last[QUERIES];

    const int thread = threadIdx.x, first = blockIdx.x * QUERIES;
    const u32 pair = thread >> 2, chunk = thread & 3;
    if (thread < QUERIES) {
        const bool there = first + thread < tokens;
        const int last = there ? positions[first + thread] : -1;
        row_of[thread] = there ? rows[first + thread] : -1;
        last_of[thread] = last < topk ? -1 : last;
    }
    for (int i = thread; i < 2 * COLUMNS * 4; i += THREADS) {
        const int column = i >> 2, inner = column % COLUMNS;
        const int query = column / COLUMNS * HALF + inner / 64 * 4 + (inner >> 1) % 4;
        const int head = (inner >> 3) % 8 * 2 + inner % 2;
        uint4 part = make_uint4(0, 0, 0, 0);
        if (first + query < tokens) {
            part = *(const uint4*)(q + ((long long)(first + query) * HEADS + head) * DIM + (i & 3) * 16);
        }
        *(uint4*)(asked + swizzled(column, i & 3)) = part;
    }
    float weight[2][32];
#pragma unroll
    for (int i = 0; i < 64; i++) {
        const int query = i / HEADS * 4 + chunk;
        const bool there = first + query < tokens;
        const float own = there ? weights[(long long)(first + query) * HEADS + i % HEADS] : 0.f;
        weight[i / 32][i % 32] = i % HEADS < LESS ? own : 0.5f * own;
    }
    Query query;
    query.last_of = run_last;
    query.lane = thread & 31;
#if MARK
    const long long apart = (long long)result_stride * 8;
    char* line = (char*)result + ((long long)(first + (thread & 7)) * result_stride + pair / 8) * 2;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        query.gate[i] = first + i * 4 + chunk < tokens ? gates[first + i * 4 + chunk] : 0.f;
    }
#else
    const long long apart = (long long)result_stride * 16;
    char* line = (char*)result + ((long long)(first + chunk) * result_stride + 2 * pair) * 4;
#endif
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();

    const u32 row = (pair >> 3) * 16 + (pair & 7);
    const u32 to_tile = shared_address(tiles) + swizzled(row, chunk);
    const u32 to_scale = shared_address(tile_scales) + pair * 8 + (chunk & 1) * 4;
    const u64 columns_x = described(shared_address(asked)), columns_y = columns_x + (COLUMNS * DIM >> 4);
    const u64 rows_described = described(shared_address(tiles));
    Given given = {keys + chunk * 16, scales, table, key_stride, 0};
    float x[HELD], y[HELD];

    for (int at = 0, after; at < QUERIES; at = after) {
        const int owner = row_of[at];
        int longest = -1, lowest = 0x7FFFFFFF;
        for (after = at; after < QUERIES && row_of[after] == owner; after++) {
            longest = max(longest, last_of[after]);
            lowest = min(lowest, last_of[after]);
        }
        if (longest < 0) continue;
        if (after - at < QUERIES) lowest = -1;
        if (thread < QUERIES) run_last[thread] = thread >= at && thread < after ? last_of[thread] : -1;
        given.line = table + (long long)owner * table_stride;
        given.last = longest;
        const int all = longest / STEP / KEYS + 1, share = (all + gridDim.y - 1) / gridDim.y;
        const int start = blockIdx.y * share * KEYS, end = min(start + share * KEYS, all * KEYS);

        int2 slot[TILES];
#pragma unroll
        for (int i = 0; i < STAGES - TILES; i += TILES) {
            look_up(slot, given, start + i * KEYS + 2 * pair);
            fill(given, slot, to_tile + i * TILE_BYTES, to_scale + i * KEYS * 4, chunk);
        }
        look_up(slot, given, start + (STAGES - TILES) * KEYS + 2 * pair);
        char* to = line + (long long)start * (MARK ? 2 : 64) / 16;
        u32 stage = 0, ahead = STAGES - TILES;
        for (int base = start; base < end; base += TILES * KEYS) {
            copies_wait<STAGES / TILES - 2>();
            FENCE;
            __syncthreads();
            const u64 tile = rows_described + (u64)(stage * (TILE_BYTES >> 4));
            begin_product(x, tile, columns_x);
            begin_product(y, tile, columns_y);
            fill(given, slot, to_tile + ahead * TILE_BYTES, to_scale + ahead * KEYS * 4, chunk);
            look_up(slot, given, base + STAGES * KEYS + 2 * pair);
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                const float2 scale = *(const float2*)(tile_scales + (stage + i) * KEYS + 2 * pair);
                const u64 next = tile + (u64)((i + 1) * (TILE_BYTES >> 4));
                const int tile_base = base + i * KEYS, number = tile_base + 2 * pair;
                const bool wanted = i == 0 || tile_base < end, whole = place_of(tile_base + KEYS - 1) <= lowest;
                products_wait<1>(x);
                if (wanted) leave<0>(x, weight, scale, query, whole, number, to, apart);
                if (i + 1 < TILES) {
                    begin_product(x, next, columns_x);
                    products_wait<1>(y);
                } else {
                    products_wait<0>(y);
                }
                if (wanted) leave<1>(y, weight, scale, query, whole, number, to, apart);
                if (i + 1 < TILES) begin_product(y, next, columns_y);
                to += KEYS * (MARK ? 2 : 64) / 16;
            }
            ahead = stage;
            stage = stage + TILES == STAGES ? 0 : stage + TILES;
        }
        copies_wait<0>();
        __syncthreads();
    }
}
