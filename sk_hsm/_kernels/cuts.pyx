# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel that cuts classes in two by balanced 2-means, and in two again.

Its specification is the function of the same name in ``reference``.
"""
from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from .rows cimport mix

cdef enum:
    LEFT = 1
    RIGHT = 2

# of at most so many classes, the products of all pairs are taken once for all cuts below
cdef enum:
    FEW = 16

# a sample of many classes is one in so many at most
cdef enum:
    PART = 8

# cosines closer than this are equal: the tree must not hang on rounding
cdef double TIE = 1e-6


cdef struct Item:
    # a class to be put on one side of a cut; `index` counts within its slice
    float score
    float mass
    int32_t index


cdef struct Split:
    # the slice [lo, hi) of the class order, to be cut at `depth`
    Py_ssize_t lo
    Py_ssize_t hi
    int depth


cdef struct Space:
    # the class centroids (CSR), and scratch: two interleaved dense sums, zero
    # between calls, and an item, a place in a sample and three sides a class;
    # products of pairs of a few classes, and which row of them each place has
    const int64_t* indptr
    const int32_t* indices
    const float* data
    const float* mass
    int64_t n_features
    float* sums
    Item* items
    int32_t* sample
    signed char* side
    signed char* new_side
    signed char* best_side
    float[FEW * FEW] products
    int32_t[FEW] row
    bint has_products


cdef extern from * nogil:
    void prefetch "__builtin_prefetch"(const void* address)


cdef void fetch(Space* x, int32_t i) noexcept nogil:
    """Have the centroid of class i brought from memory."""
    cdef int64_t j
    for j in range(x.indptr[i], x.indptr[i + 1], 16):
        prefetch(&x.data[j])
        prefetch(&x.indices[j])


cdef bint before(Item* a, Item* b) noexcept nogil:
    return a.score > b.score or (a.score == b.score and a.index < b.index)


cdef Item median(Item* a, Item* b, Item* c) noexcept nogil:
    if before(a, b):
        return b[0] if before(b, c) else (c[0] if before(a, c) else a[0])
    return a[0] if before(a, c) else (c[0] if before(b, c) else b[0])


cdef Py_ssize_t partition(Item* items, Py_ssize_t lo, Py_ssize_t hi, double* inside) noexcept nogil:
    """Quickselect's step: return the pivot's place; inside is the mass before it."""
    cdef Item pivot = median(&items[lo], &items[(lo + hi) // 2], &items[hi - 1]), item
    cdef Py_ssize_t i, at = lo, pivot_at = lo
    inside[0] = 0
    for i in range(lo, hi):
        if items[i].index == pivot.index:
            pivot_at = i
        elif before(&items[i], &pivot):
            item = items[i]
            items[i] = items[at]
            items[at] = item
            if pivot_at == at:
                pivot_at = i
            inside[0] += item.mass
            at += 1
    items[pivot_at] = items[at]
    items[at] = pivot
    return at


cdef Py_ssize_t weighted_cut(Item* items, Py_ssize_t n, double target) noexcept nogil:
    """Move the best-scored items whose mass is nearest target to the front; return how many."""
    cdef Py_ssize_t lo = 0, hi = n, at
    cdef double before_lo = 0, inside = 0
    while hi - lo > 1:
        at = partition(items, lo, hi, &inside)
        if before_lo + inside >= target and at > lo:
            hi = at
        elif before_lo + inside + items[at].mass >= target or at + 1 == hi:
            before_lo += inside
            lo, hi = at, at + 1
        else:
            before_lo += inside + items[at].mass
            lo = at + 1
    if before_lo + 0.5 * items[lo].mass < target:
        lo += 1
    return min(max(lo, 1), n - 1)


cdef double move(Space* x, int32_t i, float weight, float* sums) noexcept nogil:
    """Add weight times class i to a dense sum; return what its square norm gains."""
    cdef int64_t j
    cdef float v, gained = 0
    cdef float* s
    for j in range(x.indptr[i], x.indptr[i + 1]):
        v = weight * x.data[j]
        s = sums + 2 * <int64_t>x.indices[j]
        gained += v * (s[0] + s[0] + v)
        s[0] += v
    return gained


cdef void multiply(const Space* x, int32_t i, float* left, float* right) noexcept nogil:
    """The products of class i and both sums; four additions of each go on at a time."""
    cdef const int32_t* indices = x.indices + x.indptr[i]
    cdef const float* data = x.data + x.indptr[i]
    cdef int64_t n = x.indptr[i + 1] - x.indptr[i], j = 0
    cdef float a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0
    cdef const float *s
    while j + 3 < n:
        s = x.sums + 2 * <int64_t>indices[j]
        a += data[j] * s[0]
        b += data[j] * s[1]
        s = x.sums + 2 * <int64_t>indices[j + 1]
        c += data[j + 1] * s[0]
        d += data[j + 1] * s[1]
        s = x.sums + 2 * <int64_t>indices[j + 2]
        e += data[j + 2] * s[0]
        f += data[j + 2] * s[1]
        s = x.sums + 2 * <int64_t>indices[j + 3]
        g += data[j + 3] * s[0]
        h += data[j + 3] * s[1]
        j += 4
    while j < n:
        s = x.sums + 2 * <int64_t>indices[j]
        a += data[j] * s[0]
        b += data[j] * s[1]
        j += 1
    left[0] = (a + c) + (e + g)
    right[0] = (b + d) + (f + h)


cdef void rate(Item* item, float left, float right, double of_left, double of_right) noexcept nogil:
    """The cosine to the left centroid less that to the right one, from products and square norms."""
    cdef float scale_left = 1 / sqrt(of_left) if of_left > 1e-12 else 0
    cdef float scale_right = 1 / sqrt(of_right) if of_right > 1e-12 else 0
    cdef float total = scale_left * left - scale_right * right
    item.score = total if fabs(total) > TIE else 0


cdef void score(Space* x, const int32_t* classes, Py_ssize_t n, double of_left, double of_right) noexcept nogil:
    """Rate all classes by the sums, of these square norms."""
    cdef float left, right
    cdef Py_ssize_t i
    for i in range(n):
        if i + 1 < n:
            fetch(x, classes[i + 1])
        multiply(x, classes[i], &left, &right)
        rate(&x.items[i], left, right, of_left, of_right)
        x.items[i].mass = x.mass[classes[i]]
        x.items[i].index = i


cdef void score_few(Space* x, const int32_t* classes, const int32_t* rows, Py_ssize_t n) noexcept nogil:
    """The same by products of pairs."""
    cdef float[FEW] left, right
    cdef double of_left = 0, of_right = 0
    cdef const float* products
    cdef float mass
    cdef Py_ssize_t i, j
    for i in range(n):
        left[i] = right[i] = 0
        products = x.products + FEW * rows[i]
        for j in range(n):
            mass = x.mass[classes[j]]
            if x.side[j] == LEFT:
                left[i] += mass * products[rows[j]]
            elif x.side[j] == RIGHT:
                right[i] += mass * products[rows[j]]
        x.items[i].mass = x.mass[classes[i]]
        x.items[i].index = i
        if x.side[i] == LEFT:
            of_left += x.items[i].mass * left[i]
        elif x.side[i] == RIGHT:
            of_right += x.items[i].mass * right[i]
    for i in range(n):
        rate(&x.items[i], left[i], right[i], of_left, of_right)


cdef void take_products(Space* x, const int32_t* classes, Py_ssize_t n) noexcept nogil:
    """Of all pairs of a few classes, which are in their rows. Those of equal classes are the same to the bit."""
    cdef Py_ssize_t i, k
    cdef int64_t j
    cdef float unused
    for i in range(n):
        x.row[i] = i
        for j in range(x.indptr[classes[i]], x.indptr[classes[i] + 1]):
            x.sums[2 * <int64_t>x.indices[j]] = x.data[j]
        for k in range(n):
            multiply(x, classes[k], &x.products[FEW * i + k], &unused)
        for j in range(x.indptr[classes[i]], x.indptr[classes[i] + 1]):
            x.sums[2 * <int64_t>x.indices[j]] = 0


cdef Py_ssize_t cut_by_sign(Space* x, Py_ssize_t n, double low, double high) noexcept nogil:
    """Cut where the score changes its sign, if the mass on the left is then in [low, high]."""
    cdef double positive = 0
    cdef Py_ssize_t i
    for i in range(n):
        if x.items[i].score > 0:
            positive += x.items[i].mass
    return weighted_cut(x.items, n, min(max(positive, low), high))


cdef void carry(Space* x, int32_t i, int side, float mass, double* of_left, double* of_right) noexcept nogil:
    """Add class i to the sum of a side, if it has one."""
    if side == LEFT:
        of_left[0] += move(x, i, mass, x.sums)
    elif side == RIGHT:
        of_right[0] += move(x, i, mass, x.sums + 1)


cdef Py_ssize_t change_sides(
    Space* x, const int32_t* classes, Py_ssize_t n, double* of_left, double* of_right
) noexcept nogil:
    """Carry classes whose side changed from sum to sum; return their number."""
    cdef Py_ssize_t i, n_moved = 0
    cdef float mass
    for i in range(n):
        if x.side[i] == x.new_side[i]:
            continue
        n_moved += 1
        if not x.has_products:
            mass = x.mass[classes[i]]
            carry(x, classes[i], x.side[i], -mass, of_left, of_right)
            carry(x, classes[i], x.new_side[i], mass, of_left, of_right)
        x.side[i] = x.new_side[i]
    return n_moved


cdef double total_mass(const float* mass, const int32_t* classes, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += mass[classes[i]]
    return total


cdef void clear_sums(Space* x, const int32_t* classes, Py_ssize_t n) noexcept nogil:
    """Make them zero again: as a whole, where that is less to write."""
    cdef Py_ssize_t i
    cdef int64_t j, n_values = 0
    for i in range(n):
        n_values += x.indptr[classes[i] + 1] - x.indptr[classes[i]]
    if n_values > x.n_features:
        memset(x.sums, 0, 2 * x.n_features * sizeof(float))
        return
    for i in range(n):
        for j in range(x.indptr[classes[i]], x.indptr[classes[i] + 1]):
            x.sums[2 * <int64_t>x.indices[j]] = 0
            x.sums[2 * <int64_t>x.indices[j] + 1] = 0


cdef double two_means(
    Space* x, const int32_t* classes, const int32_t* rows, Py_ssize_t n,
    double low, double high, int max_iter, double tol,
) noexcept nogil:
    """Balanced spherical 2-means from the sides some classes have; return the sum of cosines gained."""
    cdef double of_left = 0, of_right = 0
    cdef Py_ssize_t i, cut
    cdef int iteration
    if not x.has_products:
        for i in range(n):
            carry(x, classes[i], x.side[i], x.mass[classes[i]], &of_left, &of_right)
    for iteration in range(max_iter):
        if x.has_products:
            score_few(x, classes, rows, n)
        else:
            score(x, classes, n, of_left, of_right)
        cut = cut_by_sign(x, n, low, high)
        for i in range(n):
            x.new_side[x.items[i].index] = LEFT if i < cut else RIGHT
        if change_sides(x, classes, n, &of_left, &of_right) <= tol * n:
            break
    if not x.has_products:
        clear_sums(x, classes, n)
    return sqrt(max(of_left, 0.0)) + sqrt(max(of_right, 0.0))


cdef void best_start(
    Space* x, const int32_t* classes, const int32_t* rows, Py_ssize_t n, double low, double high,
    uint64_t seed, int max_iter, double tol, int n_init,
) noexcept nogil:
    """Set the sides to the best of n_init 2-means, each from two random classes."""
    cdef double value, best = 0
    cdef Py_ssize_t first
    cdef int run
    for run in range(n_init):
        memset(x.side, 0, n)
        first = mix(mix(seed + run)) % <uint64_t>n
        x.side[first] = LEFT
        x.side[(first + 1 + mix(mix(seed + run) + 1) % <uint64_t>(n - 1)) % n] = RIGHT
        value = two_means(x, classes, rows, n, low, high, max_iter, tol)
        if run == 0 or value > best * (1 + TIE):
            best = value
            memcpy(x.best_side, x.side, n)
    memcpy(x.side, x.best_side, n)


cdef Py_ssize_t part(const signed char* side, int32_t* numbers, Py_ssize_t n, int32_t* scratch) noexcept nogil:
    """Move those on the left to the front, all in their order; return how many."""
    cdef Py_ssize_t i, n_left = 0, n_right = 0
    for i in range(n):
        if side[i] == LEFT:
            numbers[n_left] = numbers[i]
            n_left += 1
        else:
            scratch[n_right] = numbers[i]
            n_right += 1
    memcpy(numbers + n_left, scratch, n_right * sizeof(int32_t))
    return n_left


cdef Py_ssize_t bisect(
    Space* x, int32_t* classes, int32_t* rows, Py_ssize_t n, double low, double high,
    uint64_t seed, int max_iter, double tol, int n_init, Py_ssize_t n_sample,
) noexcept nogil:
    """Partition the classes in place by 2-means, and their rows of products if there are any; return the cut."""
    cdef Py_ssize_t i
    cdef double share
    if n > n_sample:
        n_sample = min(n_sample, max(n // PART, 2))
        for i in range(n_sample):
            x.sample[i] = classes[i * n // n_sample]
        share = total_mass(x.mass, x.sample, n_sample) / total_mass(x.mass, classes, n)
        best_start(x, x.sample, rows, n_sample, low * share, high * share, seed, max_iter, tol, n_init)
        memset(x.side, 0, n)
        for i in range(n_sample):
            x.side[i * n // n_sample] = x.best_side[i]
        two_means(x, classes, rows, n, low, high, max_iter, tol)
    else:
        best_start(x, classes, rows, n, low, high, seed, max_iter, tol, 1)
    if x.has_products:
        part(x.side, rows, n, x.sample)
    return part(x.side, classes, n, x.sample)


cdef int open_space(Space* x, Py_ssize_t n, Py_ssize_t n_features) except -1:
    x.sums = <float*>calloc(2 * n_features + 1, sizeof(float))
    x.items = <Item*>malloc(n * sizeof(Item))
    x.side = <signed char*>malloc(3 * n)
    x.sample = <int32_t*>malloc(n * sizeof(int32_t))
    if x.sums == NULL or x.items == NULL or x.side == NULL or x.sample == NULL:
        close_space(x)
        raise MemoryError(f"no memory to cluster {n} classes of {n_features} features")
    x.n_features = n_features
    x.new_side = x.side + n
    x.best_side = x.side + 2 * n
    return 0


cdef void close_space(Space* x) noexcept nogil:
    free(x.sums)
    free(x.items)
    free(x.sample)
    free(x.side)


def kmeans_split(
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const float[::1] data,
    const float[::1] mass,
    Py_ssize_t n_features,
    int32_t[::1] order,
    int32_t[::1] boundary_depth,
    Py_ssize_t lo,
    Py_ssize_t hi,
    int depth,
    bint whole_subtree,
    uint64_t seed,
    int max_iter,
    double tol,
    int n_init,
    Py_ssize_t n_sample,
    double slack,
):
    cdef Py_ssize_t n = hi - lo, cut, top = 1, first_few = 0, last_few = 0
    cdef double total
    cdef Space x
    cdef Split item
    cdef int32_t* rows
    cdef Split* stack = <Split*>malloc((n + 2) * sizeof(Split))
    if stack == NULL:
        raise MemoryError(f"no memory to cluster {n} classes")
    try:
        open_space(&x, n, n_features)
    except MemoryError:
        free(stack)
        raise
    x.indptr, x.mass = &indptr[0], &mass[0]
    x.indices = &indices[0] if indices.shape[0] else NULL
    x.data = &data[0] if data.shape[0] else NULL
    stack[0] = Split(lo, hi, depth)
    with nogil:
        while top > 0:
            top -= 1
            item = stack[top]
            n = item.hi - item.lo
            if n < 2:
                continue
            x.has_products = whole_subtree and n <= min(FEW, n_sample)
            if x.has_products and not first_few <= item.lo < last_few:
                first_few, last_few = item.lo, item.hi
                take_products(&x, &order[item.lo], n)
            total = total_mass(x.mass, &order[item.lo], n)
            rows = &x.row[item.lo - first_few if x.has_products else 0]
            cut = item.lo + bisect(
                &x, &order[item.lo], rows, n, (1 - slack) / 2 * total, (1 + slack) / 2 * total,
                mix(seed ^ mix(<uint64_t>item.lo) ^ <uint64_t>item.hi), max_iter, tol, n_init, n_sample,
            )
            boundary_depth[cut] = item.depth
            if whole_subtree:
                stack[top] = Split(item.lo, cut, item.depth + 1)
                stack[top + 1] = Split(cut, item.hi, item.depth + 1)
                top += 2
        free(stack)
        close_space(&x)
