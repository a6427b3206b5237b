// RTNeural's recurrent layers, whose sizes are known when they are compiled: the nanoseconds of one step.
// Compiled by runtime.py where RTNEURAL_DIR names a checkout of github.com/jatinchowdhury18/RTNeural.
#define RTNEURAL_USE_EIGEN 1
#define EIGEN_STACK_ALLOCATION_LIMIT 0  // the weights of 128 units are larger than the usual one
#define RTNEURAL_DEFAULT_ALIGNMENT 32
#include <RTNeural/RTNeural.h>

#include <chrono>
#include <random>
#include <vector>

namespace {

constexpr int F = 8;

using Matrix = std::vector<std::vector<float>>;
Matrix random_matrix(int rows, int columns) {
  std::mt19937 engine(7);
  std::uniform_real_distribution<float> number(-0.1f, 0.1f);
  Matrix found(static_cast<size_t>(rows), std::vector<float>(static_cast<size_t>(columns)));
  for (auto& row : found)
    for (float& x : row) x = number(engine);
  return found;
}

template <class Layer, class Bias> double step_ns(int H, int gates, const Bias& set_bias, long n) {
  static Layer layer;
  layer.setWVals(random_matrix(F, gates * H));
  layer.setUVals(random_matrix(H, gates * H));
  set_bias(layer);
  layer.reset();
  Eigen::Matrix<float, F, 1> x[64];
  for (auto& row : x) row.setRandom();
  const auto begin = std::chrono::steady_clock::now();
  for (long i = 0; i < n; i++) layer.forward(x[i % 64]);
  const std::chrono::duration<double, std::nano> all = std::chrono::steady_clock::now() - begin;
  volatile float sink = layer.outs(0);
  (void)sink;
  return all.count() / double(n);
}
template <int H> double gru_ns(long n) {
  return step_ns<RTNeural::GRULayerT<float, F, H>>(
      H, 3, [](auto& layer) { layer.setBVals(random_matrix(2, 3 * H)); }, n);
}
template <int H> double lstm_ns(long n) {
  return step_ns<RTNeural::LSTMLayerT<float, F, H>>(
      H, 4, [](auto& layer) { layer.setBVals(random_matrix(1, 4 * H)[0]); }, n);
}

}  // namespace

// cell: 3 gates or 4. Returns 0 for a size that is not here.
extern "C" double rtneural_step_ns(int gates, int H, long n) {
  switch (1000 * gates + H) {
    case 3032: return gru_ns<32>(n);
    case 3064: return gru_ns<64>(n);
    case 3128: return gru_ns<128>(n);
    case 4032: return lstm_ns<32>(n);
    case 4064: return lstm_ns<64>(n);
    case 4128: return lstm_ns<128>(n);
    default: return 0;
  }
}
