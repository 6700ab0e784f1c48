#include "trainer/pricing/machine_profile.hpp"

namespace switchyard {

RateAxes axes_of(std::string_view kind) {
  if (kind.starts_with("linear_") || kind.starts_with("grouped_linear_"))
    return {{"rows", "out", "in"}, true};
  if (kind == "attention_forward" || kind == "attention_backward")
    return {{"keys", "head_dim"}, true};
  return {{"bytes"}, false};
}

}  // namespace switchyard
