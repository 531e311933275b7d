from libc.stdint cimport int32_t, int64_t

cdef extern from "vectors.h" nogil:
    ctypedef struct VectorLoops:
        void (*dots)(float* scores, float** vectors, int n, const float* h, int width) noexcept nogil
        void (*steps)(
            float** vectors, const float* errors, int n, float* back, const float* h, int width
        ) noexcept nogil
    VectorLoops vector_loops()
    enum: LINE
    float dot(const float* x, const float* z, int n)
    float stable_rate(float rate, float size2)
    void shorten_step(float* step, int n, float rate, float size2)
    double weighted_sum(const float* x, const float* weights, int width)
    void exponentials(float* out, const float* scores, int n)
    double log_sum_exp(const VectorLoops* loops, const float* scores, int n)
    void sigmoids(float* scores, int n)
    void softmax(float* scores, int n)
    void prefetch_vector(const float* x, int width)
    void prefetch_embedding(const int32_t* features, int64_t n, const float* embedding, int width)
    void embed(
        const VectorLoops* loops, float* h, const int32_t* features, const float* values, int64_t n,
        const float* embedding, int width
    )
    void move_embedding(
        const VectorLoops* loops, const float* back, const int32_t* features, const float* values, int64_t n,
        float* embedding, int width
    )
