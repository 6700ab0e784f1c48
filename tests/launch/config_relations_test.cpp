// Relations between keys: each with its exact text and place.
#include "launch/config/config_file.hpp"

#include <gtest/gtest.h>

#include "cmake/built_with.hpp"
#include "launch/config/value.hpp"
#include "tests/launch/config_cases.hpp"

namespace switchyard {
namespace {

TEST(ConfigRelations, RelationsPrintTheirEquation) {
  struct Case {
    std::string_view appended;
    std::string_view message;
  };
  const Case cases[] = {
      {"model: {hidden: 100, num_heads: 8}\n",
       "a.yaml:5:17: model.hidden: hidden / num_heads = 100 / 8 is not whole, and head_dim is 0; "
       "make hidden 96 or 104, or set head_dim"},
      {"model: {mixer: {kind: hierarchical, selected: 2, combine: gates}}\n",
       "a.yaml:5:16: model.mixer: gates weigh three branches: the window, selected blocks and "
       "summaries; set selected and summaries, or write combine: union"},
      {"model: {mixer: {kind: hierarchical, selected: 2, summaries: mean, combine: gates, "
       "sinks: 1}}\n",
       "a.yaml:5:16: model.mixer: sinks = 1 take a share of one softmax, and with gates there are "
       "three; leave it out, or write combine: union"},
      {"model: {mixer: {kind: full, combine: gates}}\n",
       "a.yaml:5:16: model.mixer: combine = gates counts only with kind hierarchical, not with "
       "full; leave it out or change the kind"},
      {"model: {num_heads: 8, num_kv_heads: 4, mixer: {kind: conv_attention, conv_heads: 3}}\n",
       "a.yaml:5:47: model.mixer: conv_heads = 3 of 8 heads, 2 for each kv head: some must be "
       "attention, and heads of a kv head are of one kind; make it a multiple of 2 below 8"},
      {"model: {mixer: {kind: lsh}}\n",
       "a.yaml:5:16: model.mixer: kind lsh needs a window of at least 1 token"},
      {"model: {mixer: {kind: lsh, window: 4, buckets: 7}}\n",
       "a.yaml:5:16: model.mixer: buckets = 7 is odd, and each direction makes two; write 8"},
      {"model: {num_heads: 4, num_kv_heads: 2, mixer: {kind: lsh, window: 4}}\n",
       "a.yaml:5:47: model.mixer: queries of kind lsh are keys, too, so each head has its own, and "
       "num_kv_heads = 2; write num_kv_heads: 4"},
      {"model: {num_heads: 8, num_kv_heads: 3}\n",
       "a.yaml:5:37: model.num_kv_heads: num_heads / num_kv_heads = 8 / 3 is not whole; legal "
       "num_kv_heads: 1, 2, 4, 8"},
      {"model: {head_dim: 7}\n",
       "a.yaml:5:19: model.head_dim: head_dim = 7 is odd, and rotary positions need pairs; make it "
       "even, or choose another model.position"},
      {"model: {hidden: 12, num_heads: 4}\n",
       "a.yaml:5:17: model.hidden: head_dim = hidden / num_heads = 12 / 4 = 3 is odd, and rotary "
       "positions need pairs; make it even, or choose another model.position"},
      {"model: {position: none, rope_scaling: ntk}\n",
       "a.yaml:5:39: model.rope_scaling.kind: kind = ntk counts only with rotary positions, and "
       "model.position is none; leave it out or write model.position: rope"},
      {"model: {hidden: 9, num_heads: 3, num_kv_heads: 1, position: sinusoidal}\n",
       "a.yaml:5:61: model.position.kind: hidden = 9 is odd, and sinusoidal positions are pairs of "
       "a sine and a cosine; make it even, or choose another model.position"},
      {"experts: {num_experts: 2, top_k: 3}\n",
       "a.yaml:5:34: experts.top_k: top_k = 3 is more than num_experts = 2; lower top_k or add "
       "experts"},
      {"experts: {first_dense: 4, every: 2}\n",
       "a.yaml:5:24: experts.first_dense: first_dense = 4 leaves no layer with experts: num_layers "
       "= 4 "
       "and every = 2; make it at most 3, or num_experts 0 for a dense model"},
      {"experts: {shared: {gate: sigmoid}}\n",
       "a.yaml:5:26: experts.shared.gate: gate = sigmoid counts only with shared experts, and "
       "number is 0; leave it out or set number"},
      {"experts: {router: {kind: base}}\n",
       "a.yaml:5:26: experts.router.kind: kind base lets a token's experts depend on tokens that "
       "come after it, which training then learns from and generation does not have; write "
       "allow_future: true if that is meant, or another kind"},
      {"experts: {top_k: 3, router: {kind: gshard}}\n",
       "a.yaml:5:18: experts.top_k: kind gshard has a first and a second expert, and top_k "
       "is 3; write 2"},
      {"experts: {normalize_top_k: false, router: {kind: gshard}}\n",
       "a.yaml:5:28: experts.normalize_top_k: kind gshard keeps its second expert with a "
       "probability "
       "by its share of both scores; leave normalize_top_k out"},
      {"experts: {bias_rate: 0.001, router: {kind: hash}}\n",
       "a.yaml:5:22: experts.bias_rate: a bias moves the choice of the largest scores, and kind "
       "hash chooses in another way; leave bias_rate out or change the kind"},
      {"experts: {balance_loss: load}\n",
       "a.yaml:5:25: experts.balance_loss: balance_loss load is made of the noise of kind "
       "noisy_top_k, and kind top_k has none; leave balance_loss out or change the kind"},
      {"experts: {bias_rule: quantile}\n",
       "a.yaml:5:22: experts.bias_rule: bias_rule quantile goes a share bias_rate of the way, "
       "above "
       "0 and at most 1, and bias_rate is 0; write bias_rate: 0.1"},
      {"experts: {router: {kind: noisy_top_k, score: sigmoid}}\n",
       "a.yaml:5:46: experts.router.score: kind noisy_top_k is defined with a softmax; leave score "
       "out"},
      {"experts: {router: {softmax_over: chosen, score: sigmoid}}\n",
       "a.yaml:5:34: experts.router.softmax_over: score sigmoid has no softmax; leave softmax_over "
       "out"},
      {"experts: {normalize_top_k: false, router: {softmax_over: chosen}}\n",
       "a.yaml:5:58: experts.router.softmax_over: a softmax over the chosen sums to 1; leave "
       "normalize_top_k out"},
      {"experts: {router: {kind: hash, jitter: 0.01}}\n",
       "a.yaml:5:40: experts.router.jitter: kind hash does not look at the token's vector; leave "
       "jitter out"},
      {"experts: {router: {groups: 3}}\n",
       "a.yaml:5:28: experts.router.groups: num_experts / groups = 8 / 3 is not whole"},
      {"experts: {router: {groups: 4, top_groups: 5}}\n",
       "a.yaml:5:43: experts.router.top_groups: top_groups = 5 is more than groups = 4; lower it"},
      {"experts: {top_k: 3, router: {groups: 4}}\n",
       "a.yaml:5:38: experts.router.groups: top_k = 3 is more than the 2 experts of top_groups = 1 "
       "groups; raise top_groups or lower top_k"},
      {"experts: {router: {kind: balanced, groups: 2}}\n",
       "a.yaml:5:44: experts.router.groups: groups count only with kind top_k, not with balanced; "
       "leave them out"},
      {"experts: {router: {capacity: 2}}\n",
       "a.yaml:5:30: experts.router.capacity: capacity counts only with kind expert_choice, not "
       "with top_k; leave it out"},
      {"experts: {router: {kind: imbalanced, imbalance: 5}}\n",
       "a.yaml:5:49: experts.router.imbalance: an expert gets a token once, so at most num_experts "
       "/ top_k = 8 / 2 = 4 times the mean, and imbalance is 5"},
      {"experts: {every: 5}\n",
       "a.yaml:5:18: experts.every: every = 5 is more than num_layers = 4, so no layer would have "
       "experts; lower it, or write 0 for a dense model"},
      {"experts: {balance_scope: step}\nmodel: {sequence_length: 2048}\n"
       "train: {global_batch: 1000000}\n",
       "a.yaml:5:26: experts.balance_scope: global_batch x sequence_length x top_k = 1000000 x "
       "2048 x "
       "2 is more than 2147483647 choices, which balance_scope step can count; write sequence"},
      {"experts: {max_rows: 100}\n",
       "a.yaml:5:21: experts.max_rows: max_rows = 100 is too few: parts of fewer than 2048 rows "
       "would have to cut sums of weight gradients; write at least 2048, or 0 for all rows at "
       "once"},
      {"experts: {dispatch: {ranks_per_node: 2}}\n",
       "a.yaml:5:38: experts.dispatch.ranks_per_node: ranks_per_node = 2 counts only with kind "
       "hierarchical, not with all_to_all; leave it out or change the kind"},
      {"experts: {latent: 30, dispatch: {kind: all_gather, wire: fp8}}\n",
       "a.yaml:5:58: experts.dispatch.wire: with kind all_gather packed tokens travel in words of "
       "4 "
       "bytes, and tokens of 30 elements (experts.latent, or model.hidden) do not fill them; make "
       "those a multiple of 4, or write wire: compute or kind: all_to_all"},
      {"numerics: {exact: true}\nexperts: {dispatch: {wire: bf16}}\n",
       "a.yaml:6:28: experts.dispatch.wire: wire bf16 rounds what travels, and how much travels "
       "follows from the layout, which numerics.exact forbids; write compute, or numerics.exact: "
       "false"},
      {"experts: {drop_by: score}\n",
       "a.yaml:5:20: experts.drop_by: drop_by counts only with a capacity_factor above 0; set it "
       "or "
       "leave both out"},
      {"experts: {dispatch: {return: summed}}\n",
       "a.yaml:5:30: experts.dispatch.return: return: summed adds up on the ranks that kind "
       "hierarchical sends tokens through, and kind is all_to_all; write kind: hierarchical, or "
       "return: rows"},
      {"experts: {dispatch: {kind: hierarchical, return: summed, chunks: 2}}\n",
       "a.yaml:5:50: experts.dispatch.return: sums wait for all experts, and chunks = 2 would send "
       "some ahead; write chunks: 1, or return: rows"},
      {"numerics: {exact: true}\nexperts: {dispatch: {kind: hierarchical, return: summed}}\n",
       "a.yaml:6:50: experts.dispatch.return: return: summed adds up what a node's experts return "
       "for a token, and which these are follows from the layout, which numerics.exact forbids; "
       "write rows, or numerics.exact: false"},
      {"experts: {num_experts: 2, top_k: 1, placement: {order: [0, 0, 2]}}\n",
       "a.yaml:5:56: experts.placement.order: order has to name each of the num_experts = 2 "
       "experts, from 0 to 1, once or (with replicas) several times, or be left out"},
      {"experts: {placement: {replicas: 2}}\n",
       "a.yaml:5:33: experts.placement.replicas: only a run whose experts move finds those that "
       "should have replicas; write every, or leave replicas out and name experts several times in "
       "order"},
      {"experts: {num_experts: 2, top_k: 1, placement: {order: [0, 1, 0], every: 5, replicas: "
       "1}}\n",
       "a.yaml:5:87: experts.placement.replicas: order says already how many places there are; "
       "leave replicas or order out"},
      {"experts: {capacity_padding: true}\n",
       "a.yaml:5:29: experts.capacity_padding: capacity_padding fills rows up to a capacity, and "
       "there is none; write a capacity_factor above 0, or leave capacity_padding out"},
      {"experts: {capacity_factor: 1, capacity_padding: true, dispatch: {chunks: 2}}\n",
       "a.yaml:5:49: experts.capacity_padding: padded rows of all experts are put in order at "
       "once; leave capacity_padding out, or write chunks: 1"},
      {"experts: {capacity_factor: 1, drop_by: score}\n",
       "a.yaml:5:40: experts.drop_by: drop_by score lets it depend on tokens that come later "
       "whether a token's choice is dropped; write allow_future: true if that is meant, or "
       "drop_by: position"},
      {"checkpoint: {start_with: all}\n",
       "a.yaml:5:26: checkpoint.start_with: start_with = all counts only with start_from, the "
       "checkpoint to begin with; set it or leave both out"},
      {"checkpoint: {start_from: a, resume: b}\n",
       "a.yaml:5:26: checkpoint.start_from: resume = b names a checkpoint to go on from, so that "
       "start_from = a would never be read; leave one of them out"},
      {"train: {global_batch: 8, micro_batch: 3}\n",
       "a.yaml:5:39: train.micro_batch: global_batch / micro_batch = 8 / 3 is not whole; legal "
       "micro_batch: 0, 1, 2, 4, 8"},
      {"optimizer: {schedule: constant_decay, decay_steps: 90}\n",
       "a.yaml:5:52: optimizer.decay_steps: warmup_steps + decay_steps = 20 + 90 = 110 is more "
       "than "
       "num_steps = 100; legal decay_steps: at most 80"},
      {"numerics: {exact: true}\nparallel: {context: {method: ring}}\n",
       "a.yaml:6:30: parallel.context.method: method ring adds up every result hop by hop, so "
       "that its last bits depend on who holds which positions, and numerics.exact forbids that; "
       "write auto or all_gather, or numerics.exact: false"},
      {"numerics: {exact: true}\nexperts: {balance_scope: step}\n",
       "a.yaml:6:26: experts.balance_scope: balance_scope step takes its means over the sequences "
       "that share a micro-step, which follow from the layout, and numerics.exact forbids that; "
       "write sequence (or bias_rate, for a balance over all), or numerics.exact: false"},
      {"optimizer: {decay_steps: 5}\n",
       "a.yaml:5:26: optimizer.decay_steps: decay_steps = 5 counts only with schedule "
       "constant_decay, not with cosine; leave it out or change the schedule"},
      {"optimizer: {min_learning_rate: 1}\n",
       "a.yaml:5:32: optimizer.min_learning_rate: min_learning_rate = 1 is more than learning_rate "
       "= 0.0006; lower it"},
  };
  for (const Case& each : cases) {
    EXPECT_EQ(mistakes_after(each.appended), each.message) << each.appended;
  }
  EXPECT_EQ(mistakes_of("run: {output: a, device: cuda}\ndata: {path: b}\n"),
            built_with_cuda ? ""
                            : "a.yaml:1:26: run.device: this build has no cuda device; write cpu "
                              "or auto, or build it where the CUDA toolkit is installed (cmake "
                              "--preset cuda)");
}

// One weight scaled to 1 hides the router from the language model's loss, so it is not the default.
TEST(ConfigRelations, NormalizeTopKLeftOutFollowsTopK) {
  const auto load = [](std::string_view appended, const std::vector<std::string>& overrides = {}) {
    return load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides);
  };
  const auto normalizes = [&](std::string_view appended,
                              const std::vector<std::string>& overrides) {
    const LoadedConfig loaded = load(appended, overrides);
    EXPECT_EQ(loaded.warnings, std::vector<std::string>{});
    return loaded.config.experts.normalize_top_k;
  };
  EXPECT_TRUE(normalizes("", {}));
  EXPECT_TRUE(normalizes("experts: {top_k: 3}\n", {}));
  EXPECT_TRUE(normalizes("experts: {top_k: 1}\n", {"experts.top_k=2"}));
  EXPECT_FALSE(normalizes("experts: {top_k: 1}\n", {}));
  EXPECT_FALSE(normalizes("", {"experts.top_k=1"}));
  EXPECT_FALSE(normalizes("experts: {normalize_top_k: false}\n", {}));
  EXPECT_TRUE(normalizes("experts: {router: {softmax_over: chosen}}\n", {}));
  EXPECT_FALSE(normalizes("experts: {allow_future: true, router: {kind: expert_choice}}\n", {}));
  EXPECT_TRUE(normalizes("experts: {num_experts: 0, top_k: 1, normalize_top_k: true}\n", {}));

  // What a checkpoint or a run's config.yaml says stays as it was meant, with a warning.
  const std::string problem =
      "warning: with top_k = 1, normalize_top_k = true makes the one weight 1, so the router "
      "learns from the balance and z losses alone and not from the language model's; write false "
      "unless Mixtral's mathematics at top-1 is meant";
  const LoadedConfig saved = load("experts: {top_k: 1, normalize_top_k: true}\n");
  EXPECT_TRUE(saved.config.experts.normalize_top_k);
  EXPECT_EQ(saved.warnings,
            std::vector<std::string>{"a.yaml:5:38: experts.normalize_top_k: " + problem});
  EXPECT_EQ(load("experts: {normalize_top_k: true}\n", {"experts.top_k=1"}).warnings,
            std::vector<std::string>{"command line: experts.top_k=1: " + problem});
}

// A key that is gone names its successor; the configuration that a checkpoint keeps may have it.
TEST(ConfigRelations, ARelationWithAWrongValueIsNotChecked) {
  EXPECT_EQ(mistakes_after("experts: {num_experts: two, top_k: 30}\n"),
            "a.yaml:5:24: experts.num_experts: expected a whole number, got two");
}

TEST(ConfigRelations, RanksThatDoNotFit) {
  const auto problems = [](std::string_view appended, std::int64_t num_ranks) {
    return validate_for_ranks(load_config(std::string(smallest) + std::string(appended), "a.yaml"),
                              num_ranks);
  };
  using Lines = std::vector<std::string>;
  EXPECT_EQ(problems("", 4), Lines{});
  EXPECT_EQ(problems("", 3),
            Lines{"a.yaml:1:1: train.global_batch: global_batch / data = 8 / 3 is not whole; make "
                  "global_batch 6 or 9"});
  EXPECT_EQ(
      problems("train: {global_batch: 16, micro_batch: 8}\n", 4),
      Lines{"a.yaml:5:23: train.global_batch: global_batch / (data x micro_batch) = 16 / (4 x "
            "8) is not whole; make global_batch 32"});
  // Ranks without experts are legal, and so is a warm-up longer than the run.
  EXPECT_EQ(problems("parallel: {expert: 4}\nexperts: {num_experts: 3}\n", 4), Lines{});
  EXPECT_EQ(problems("train: {num_steps: 10}\n", 4), Lines{});
  EXPECT_EQ(problems("parallel: {context: {ulysses: 4}}\nmodel: {num_heads: 6, head_dim: 32, "
                     "num_kv_heads: 2}\n",
                     4),
            Lines{"a.yaml:5:31: parallel.context.ulysses: 4 ranks cannot share 6 heads and 2 kv "
                  "heads: it must divide model.num_heads, and divide model.num_kv_heads or be a "
                  "multiple of it; ulysses may be 1, 2, 6"});
  EXPECT_EQ(problems("model: {mixer: {kind: ssd}}\nnumerics: {exact: true}\n", 1),
            Lines{"a.yaml:5:16: model.mixer: a recurrence adds up its chunks from where a rank's "
                  "part of a sequence begins, so that its last bits depend on the layout, and "
                  "numerics.exact forbids that; write mixers of kind full or window, or "
                  "write numerics.exact: false"});
  EXPECT_EQ(problems("model: {mixer: {conv: 4}}\nnumerics: {exact: true}\n", 1),
            Lines{"a.yaml:5:16: model.mixer: the gradient of a convolution's taps is summed over "
                  "a rank's rows in fp32, so that its last bits depend on the layout, and "
                  "numerics.exact forbids that; leave conv out, or write numerics.exact: false"});
  EXPECT_EQ(
      problems("numerics: {exact: true, unit_sequences: 2, max_context: 2}\n", 1),
      Lines{"a.yaml:5:41: numerics.unit_sequences: a unit is unit_sequences = 2 sequences, or "
            "with max_context = 2 a part of one; set one of them to 1"});
  // Tokens of a micro-batch and rows of a rank have 32-bit numbers.
  EXPECT_EQ(
      problems("model: {sequence_length: 1000000}\ntrain: {global_batch: 4000, micro_batch: "
               "4000}\nparallel: {expert: 1}\n",
               1),
      Lines{"a.yaml:6:42: train.micro_batch: micro_batch x sequence_length = 4000 x 1000000 = "
            "4000000000 tokens of a micro-batch; at most 2147483647 can be numbered, so make "
            "train.micro_batch or model.sequence_length smaller"});
  const Lines rows = problems(
      "model: {sequence_length: 1000000}\ntrain: {global_batch: 4000, "
      "micro_batch: 1000}\nparallel: {expert: 4}\n",
      4);
  ASSERT_EQ(rows.size(), 1);
  EXPECT_TRUE(rows[0].starts_with("a.yaml:6:42: train.micro_batch: of 1000000000 tokens "))
      << rows[0];
  // They suffice where the ranks share each sequence.
  EXPECT_EQ(problems("model: {sequence_length: 1000000}\ntrain: {global_batch: 1000, micro_batch: "
                     "500}\nparallel: {expert: 4, context: 4}\n",
                     4),
            Lines{});
  // A line for each way to share a sequence of 30 among 4 ranks.
  const Lines length = problems("model: {sequence_length: 30}\nparallel: {context: 4}\n", 4);
  ASSERT_FALSE(length.empty());
  for (const std::string& line : length)
    EXPECT_EQ(line.substr(0, 36), "a.yaml:6:21: parallel.context.ranks:");
  EXPECT_EQ(
      problems("model: {sequence_length: 30}\nparallel: {context: {ranks: 4, pad: true}}\n", 4),
      Lines{});
  const Lines mesh = problems("parallel: {data: 3}\n", 4);
  ASSERT_EQ(mesh.size(), 1U);
  EXPECT_EQ(mesh[0].substr(0, 27), "a.yaml:5:18: parallel.data:");
  EXPECT_NE(mesh[0].find("4"), std::string::npos);
  EXPECT_THROW(require_valid_for_ranks(load_config(smallest, "a.yaml"), 3), ConfigError);
}

// Of the keys in the equation the one that was set last, whatever else is set.
TEST(ConfigRelations, RanksThatDoNotFitAreTheFaultOfAKeyOfTheEquation) {
  // "command line: KEY=VALUE" of the only mistake.
  const auto place = [](std::string_view appended, const std::vector<std::string>& overrides) {
    const std::vector<std::string> lines = validate_for_ranks(
        load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides), 4);
    return lines.size() == 1 ? lines[0].substr(0, lines[0].find(": ", 14)) : "several";
  };
  EXPECT_EQ(place("", {"parallel.expert=1", "parallel.context=3", "parallel.bucket_megabytes=9"}),
            "command line: parallel.context=3");
  EXPECT_EQ(place("", {"parallel.data=3", "parallel.expert=1"}), "command line: parallel.data=3");
  EXPECT_EQ(place("", {"parallel.data=4", "parallel.context=2", "parallel.expert=2"}),
            "command line: parallel.context=2");
  EXPECT_EQ(place("", {"parallel.context=2", "parallel.data=4"}), "command line: parallel.data=4");
  EXPECT_EQ(place("", {"parallel.context=2", "parallel.context.ring=4", "parallel.data=1"}),
            "command line: parallel.context.ring=4");
  EXPECT_EQ(place("parallel: {expert: 1, context: {ring: 2, ulysses: 2}}\n", {"parallel.data=2"}),
            "command line: parallel.data=2");
  EXPECT_EQ(validate_for_ranks(
                load_config(smallest, "a.yaml",
                            std::vector<std::string>{"parallel.expert=3", "parallel.context=2"}),
                4),
            std::vector<std::string>{"command line: parallel.expert=3: 3 does not divide data 2 x "
                                     "context 2 (ring 2 x ulysses 1) = 4 ranks; expert may be 1, 2 "
                                     "or 4"});
  // So it is with other relations: the file was right until somebody changed a part.
  EXPECT_EQ(mistakes_after("experts: {num_experts: 4, top_k: 2}\n", {"experts.num_experts=1"}),
            "command line: experts.num_experts=1: top_k = 2 is more than num_experts = 1; lower "
            "top_k or add experts");
}

TEST(ConfigRelations, AVocabularyBelowTheTokenizers) {
  const auto message = [](const std::vector<std::string>& overrides) -> std::string {
    const std::string text = std::string(smallest) + "model: {vocab_size: 200}\n";
    try {
      require_valid_for_vocabulary(load_config(text, "a.yaml", overrides), 257);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  const std::string problem =
      "vocab_size = 200, but the tokenizer of a.h5 has 257 tokens; write 0 (the tokenizer's) or at "
      "least 257";
  EXPECT_EQ(message({}), "a.yaml:5:21: model.vocab_size: " + problem);
  EXPECT_EQ(message({"model.vocab_size=200"}), "command line: model.vocab_size=200: " + problem);
  EXPECT_EQ(message({"model.vocab_size=257"}), "");
  EXPECT_EQ(message({"model.vocab_size=0"}), "");
}

// Files with random bytes exchanged, left out or doubled: read, or refused with a message.

}  // namespace
}  // namespace switchyard
