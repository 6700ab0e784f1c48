// Texts in a scratch folder, prepared into out.h5 there, and what came of them.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <string>
#include <vector>

#include "data/prepare/prepare.hpp"
#include "data/token_file.hpp"
#include "scratch_folder.hpp"

namespace switchyard {

class Prepare : public ScratchFolder {
 protected:
  Prepare() {
    options_.output = path("out.h5");
    options_.valid_fraction = 0;
  }
  void add(const std::string& name, std::string_view content) {
    options_.inputs.push_back(write(name, content));
  }
  void add_gz(const std::string& name, const std::string& content) {
    const gzFile file = gzopen(path(name).c_str(), "wb");
    ASSERT_EQ(gzwrite(file, content.data(), static_cast<unsigned>(content.size())),
              static_cast<int>(content.size()));
    gzclose(file);
    options_.inputs.push_back(path(name));
  }
  PrepareSummary run() {
    return prepare(options_, {.message = [&](std::string_view message) {
                     messages_.append(message).append("\n");
                   }});
  }
  // The documents of a split as texts.
  std::vector<std::string> documents(Split split = Split::train) const {
    const TokenFile file(options_.output);
    file.verify();
    const std::vector<std::int64_t> offsets = file.document_offsets(split);
    std::vector<std::string> texts;
    for (std::size_t d = 0; d + 1 < offsets.size(); ++d) {
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(offsets[d + 1] - offsets[d]));
      file.read(split, offsets[d], tokens);
      EXPECT_EQ(tokens.back(), file.end_of_document());
      tokens.pop_back();
      texts.push_back(file.tokenizer().decode(tokens));
    }
    return texts;
  }
  bool has_output() const {
    const auto all = names();
    return std::any_of(all.begin(), all.end(),
                       [](const std::string& name) { return name.starts_with("out.h5"); });
  }

  PrepareOptions options_;
  std::string messages_;
};

using Texts = std::vector<std::string>;

}  // namespace switchyard
