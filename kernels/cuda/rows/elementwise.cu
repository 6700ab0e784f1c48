#include "kernels/cuda/rows/elementwise.hpp"

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

// Where rows touch, they are one long row.
template <class... Views>
bool all_dense(const Views&... views) {
  return (views.is_contiguous() && ...);
}
TensorView as_one_row(const TensorView& view) {
  return view.reshape({1, view.numel()});
}

template <int width, bool whole>
struct Zero {
  CardRows<std::uint8_t> bytes;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    store_run<std::uint8_t, width, whole>(bytes[row] + col, left, Run<std::uint8_t, width>{});
  }
};

struct Iota {
  std::int32_t* numbers;
  __device__ void operator()(std::int64_t, std::int64_t col, std::int64_t) const {
    numbers[col] = static_cast<std::int32_t>(col);
  }
};

template <class From, class To, int width, bool whole>
struct Convert {
  CardRows<From> from;
  CardRows<To> to;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<From, width> in = load_run<From, width, whole>(from[row] + col, left);
    Run<To, width> out;
#pragma unroll
    for (int j = 0; j < width; ++j) out.values[j] = from_float<To>(to_float(in.values[j]));
    store_run<To, width, whole>(to[row] + col, left, out);
  }
};

template <class T, int width, bool whole>
struct Add {
  CardRows<T> a, b, out;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> x = load_run<T, width, whole>(a[row] + col, left);
    const Run<T, width> y = load_run<T, width, whole>(b[row] + col, left);
    Run<T, width> sum;
#pragma unroll
    for (int j = 0; j < width; ++j)
      sum.values[j] = from_float<T>(to_float(x.values[j]) + to_float(y.values[j]));
    store_run<T, width, whole>(out[row] + col, left, sum);
  }
};

template <int width, bool whole>
struct Scale {
  CardRows<float> x;
  float factor;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    Run<float, width> run = load_run<float, width, whole>(x[row] + col, left);
#pragma unroll
    for (int j = 0; j < width; ++j) run.values[j] *= factor;
    store_run<float, width, whole>(x[row] + col, left, run);
  }
};

// The copy engine's rows, of equal types.
void copy_bytes(const TensorView& src, const TensorView& dst) {
  const std::int64_t size = size_of(src.dtype);
  const auto bytes = [size](std::int64_t elements) {
    return static_cast<std::size_t>(elements * size);
  };
  if (all_dense(src, dst))
    check(cudaMemcpyAsync(dst.kernel_bytes(), src.kernel_bytes(), bytes(src.numel()),
                          cudaMemcpyDefault, stream_of(dst)));
  else
    check(cudaMemcpy2DAsync(dst.kernel_bytes(), bytes(dst.row_stride), src.kernel_bytes(),
                            bytes(src.row_stride), bytes(src.cols()),
                            static_cast<std::size_t>(src.rows()), cudaMemcpyDefault,
                            stream_of(dst)));
}

// One access of 16 bytes for bf16, two for f32.
constexpr int convert_width = packet_size<__nv_bfloat16>;

template <class From, class To>
void convert(const TensorView& src, const TensorView& dst) {
  const auto launch = [&]<bool whole>() {
    for_each_run<convert_width>(
        stream_of(dst), src.rows(), src.cols(),
        Convert<From, To, convert_width, whole>{card_rows<From>(src), card_rows<To>(dst)});
  };
  if (in_runs<From, convert_width>(src) && in_runs<To, convert_width>(dst))
    launch.template operator()<true>();
  else
    launch.template operator()<false>();
}

}  // namespace

void fill_zero(const TensorView& x) {
  if (all_dense(x) && x.rows() > 1) return fill_zero(as_one_row(x));
  const std::int64_t size = size_of(x.dtype);
  TensorView bytes = x;
  bytes.dtype = DType::u8;
  bytes.shape = {x.rows(), x.cols() * size};
  bytes.row_stride = x.row_stride * size;
  constexpr int width = packet_size<std::uint8_t>;
  const auto launch = [&]<bool whole>() {
    for_each_run<width>(stream_of(x), bytes.rows(), bytes.cols(),
                        Zero<width, whole>{card_rows<std::uint8_t>(bytes)});
  };
  if (in_runs<std::uint8_t, width>(bytes))
    launch.template operator()<true>();
  else
    launch.template operator()<false>();
}

void iota(const TensorView& x) {
  for_each_run<1>(stream_of(x), 1, x.numel(), Iota{pointer<std::int32_t>(x)});
}

void copy(const TensorView& src, const TensorView& dst) {
  if (src.dtype == dst.dtype) return copy_bytes(src, dst);
  if (all_dense(src, dst) && src.rows() > 1) return copy(as_one_row(src), as_one_row(dst));
  if (src.dtype == DType::f32) return convert<float, __nv_bfloat16>(src, dst);
  convert<__nv_bfloat16, float>(src, dst);
}

void add(const TensorView& a, const TensorView& b, const TensorView& out) {
  if (all_dense(a, b, out) && a.rows() > 1)
    return add(as_one_row(a), as_one_row(b), as_one_row(out));
  with_float_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(out), a.rows(), a.cols(),
          Add<T, width, whole>{card_rows<T>(a), card_rows<T>(b), card_rows<T>(out)});
    };
    if (in_runs<T, width>(a) && in_runs<T, width>(b) && in_runs<T, width>(out))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

void scale(const TensorView& x, float factor) {
  if (all_dense(x) && x.rows() > 1) return scale(as_one_row(x), factor);
  constexpr int width = packet_size<float>;
  const auto launch = [&]<bool whole>() {
    for_each_run<width>(stream_of(x), x.rows(), x.cols(),
                        Scale<width, whole>{card_rows<float>(x), factor});
  };
  if (in_runs<float, width>(x))
    launch.template operator()<true>();
  else
    launch.template operator()<false>();
}

}  // namespace switchyard::kernels::cuda
