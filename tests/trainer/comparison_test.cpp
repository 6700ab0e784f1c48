// What a checkpoint has otherwise than the run that takes it up: keys, corpus, tokenizer.
#include "trainer/checkpoint/comparison.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "tensor/error.hpp"
#include "tests/data/scratch_folder.hpp"
#include "tests/trainer/synthetic_model.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"

namespace switchyard {
namespace {

const ConfigValues saved = {{"run.output", "a"},
                            {"run.seed", "1"},
                            {"model.num_heads", "4"},
                            {"model.rope_scaling.kind", "none"},
                            {"model.rope_scaling.factor", "1"},
                            {"model.mixer", "[{kind: full, window: 0}]"},
                            {"model.gone", "3"},
                            {"numerics.max_context", "1"},
                            {"experts.top_k", "2"}};

TEST(ChangedKeys, NothingChanged) {
  EXPECT_TRUE(changed_keys(saved, saved).empty());
  EXPECT_TRUE(changed_keys({}, saved).empty());
  EXPECT_TRUE(changed_keys(saved, {}).empty());
}

TEST(ChangedKeys, OfModelExpertsAndDataAndOnlyWhatBothHave) {
  const ConfigValues now = {{"run.output", "b"},
                            {"run.seed", "2"},
                            {"model.num_heads", "8"},
                            {"model.rope_scaling.kind", "none"},
                            {"model.rope_scaling.factor", "4"},
                            {"model.mixer", "[{kind: window, window: 9}]"},
                            {"model.new", "1"},
                            {"numerics.max_context", "24"},
                            {"experts.top_k", "1"}};
  const std::vector<ChangedKey> expected = {
      {"run.seed", "1", "2"},
      {"model.num_heads", "4", "8"},
      {"model.rope_scaling.factor", "1", "4"},
      {"model.mixer", "[{kind: full, window: 0}]", "[{kind: window, window: 9}]"},
      {"numerics.max_context", "1", "24"},
      {"experts.top_k", "2", "1"}};
  EXPECT_EQ(changed_keys(saved, now), expected);
}

// A checkpoint of a model without meaning, in the folder of a run.
class Comparison : public ScratchFolder {
 protected:
  Comparison() : world_(make_local_group("world")), device_(make_cpu_device()) {}

  std::string save(const CorpusRecord& corpus) {
    test::SyntheticModel model(*device_, *world_, 1);
    return save_checkpoint({.folder = path("run/checkpoints"),
                            .state = {.step = 7},
                            .configuration = "saved",
                            .corpus = corpus},
                           model.store, *model.optimizer, *world_, nullptr)
        .path;
  }
  TokenFile corpus(const std::string& name, std::int32_t last_token) {
    const auto tokenizer = make_byte_tokenizer();
    TokenFileWriter writer(folder_, *tokenizer);
    writer.add_document(Split::train, std::vector<std::int32_t>{1, 2, 3});
    writer.add_document(Split::valid, std::vector<std::int32_t>{4, last_token});
    writer.write(path(name), "[]");
    return TokenFile(path(name));
  }
  std::string reports_of(const std::string& checkpoint, const TokenFile& tokens) {
    std::string all;
    const ConfigText same{.yaml = "now", .values_of = [](std::string_view) { return saved; }};
    compare_with_checkpoint(checkpoint, same, tokens, ReadFor::training, *world_,
                            [&](const std::string& text) { all += text + "\n"; });
    return all;
  }

  std::unique_ptr<Group> world_;
  std::unique_ptr<Device> device_;
};

TEST_F(Comparison, AnotherCorpusIsToldWithBothChecksums) {
  const TokenFile one = corpus("a.h5", 5);
  const TokenFile same = corpus("b.h5", 5);
  const TokenFile other = corpus("c.h5", 6);  // in the validation split alone
  const std::string checkpoint = save(corpus_record(one));
  EXPECT_EQ(reports_of(checkpoint, one), "");
  EXPECT_EQ(reports_of(checkpoint, same), "");
  EXPECT_EQ(reports_of(checkpoint, other),
            "the checkpoint was trained on another corpus: " + one.path() + " (checksums: train " +
                one.checksum(Split::train) + ", valid " + one.checksum(Split::valid) +
                "); here it is " + other.path() + " (train " + one.checksum(Split::train) +
                ", valid " + other.checksum(Split::valid) + ")\n");
  EXPECT_EQ(read_manifest(checkpoint).corpus, corpus_record(one));
}

// Of an earlier version: what cannot be compared is said so, and a tokenizer that its run has kept
// is compared however the checkpoint is named.
TEST_F(Comparison, WhereThereIsNothingToCompareItSaysSo) {
  const TokenFile tokens = corpus("a.h5", 5);
  const std::string checkpoint = save({});
  const std::string nothing = "there is nothing to compare";
  const std::string both = reports_of(checkpoint, tokens);
  EXPECT_NE(both.find("names no tokenizer"), std::string::npos) << both;
  EXPECT_NE(both.find(nothing + " " + tokens.path()), std::string::npos) << both;
  keep_tokenizer(path("run"), tokens.tokenizer());
  EXPECT_EQ(reports_of(checkpoint, tokens).find("names no tokenizer"), std::string::npos);

  const std::vector<std::string> texts(50, "the quick brown fox jumps over the lazy dog");
  keep_tokenizer(path("run"), *train_sentencepiece(texts, {.vocab_size = 300}));
  std::filesystem::create_directory_symlink(checkpoint, path("link"));
  for (const std::string& named :
       {checkpoint, checkpoint + "/", path("link"), path("run/../run/checkpoints/./step-00000007")})
    EXPECT_THROW(reports_of(named, tokens), CheckpointError) << named;
}

// The width of a head may be written out or left to hidden / num_heads.
TEST(ChangedKeys, TheSameHeadDimIsNoChange) {
  const auto with_head_dim = [](const char* head_dim) {
    return ConfigValues{
        {"model.hidden", "64"}, {"model.num_heads", "4"}, {"model.head_dim", head_dim}};
  };
  const ConfigValues left = with_head_dim("0");
  const ConfigValues written = with_head_dim("16");
  const ConfigValues other = with_head_dim("32");
  EXPECT_TRUE(changed_keys(left, written).empty());
  EXPECT_TRUE(changed_keys(written, left).empty());
  EXPECT_EQ(changed_keys(left, other), (std::vector<ChangedKey>{{"model.head_dim", "16", "32"}}));
}

}  // namespace
}  // namespace switchyard
