// A configuration in YAML. One that is read can be written and read again.
#include <cstdlib>

#include "launch/config/config_file.hpp"
#include "tensor/error.hpp"
#include "tests/fuzz/fuzz_target.hpp"

std::vector<std::string> switchyard::fuzz::seeds() {
  return {"run: {output: runs/a}\ndata: {path: a.h5}\n",
          "# words\nrun: {output: r, seed: 3, precision: fp32}\n"
          "data:\n  path: a.h5\n  mixture: \"a.h5 1, b.h5 2\"\n"
          "model: {hidden: 64, num_layers: 2, mixer: [{kind: window, window: 8}, {kind: full}]}\n"
          "experts:\n  top_k: 2\n  router: {score: sigmoid}\nparallel:\n  context: 2\n"
          "optimizer: {learning_rate: 1e-3, betas: &x [0.9, 0.95]}\nprofile: {steps: 1..3}\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string written =
        switchyard::to_yaml(switchyard::load_config(text, "fuzz.yaml", {}).config);
    const std::string again =
        switchyard::to_yaml(switchyard::load_config(written, "again.yaml", {}).config);
    if (written != again) std::abort();
  } catch (const switchyard::Error&) {
  }
  return 0;
}
