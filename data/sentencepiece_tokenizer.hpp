// The seam between tokenizer.cpp (kinds, serialization) and sentencepiece_tokenizer.cpp (the
// library). Private to data/*.cpp.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// A model's bytes under the header that load_tokenizer_blob() looks for.
std::string serialize_sentencepiece(std::string_view model);

}  // namespace switchyard
