#include "trainer/pricing/machine_profile.hpp"

namespace switchyard {

RateAxes axes_of(std::string_view kind) {
  if (kind.starts_with("linear_") || kind.starts_with("grouped_linear_"))
    return {{"rows", "out", "in"}, true};
  if (kind.starts_with("attention_forward") || kind.starts_with("attention_backward")) {
    if (kind.ends_with("_window")) return {{"window", "length", "head_dim", "group"}, true};
    return {{"keys", "head_dim", "group"}, true};
  }
  return {{"bytes"}, false};
}

}  // namespace switchyard
