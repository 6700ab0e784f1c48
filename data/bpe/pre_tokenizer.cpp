#include "data/bpe/pre_tokenizer.hpp"

#include <functional>

namespace switchyard::bpe {

namespace {

using TakePart = std::function<void(std::string_view)>;

// Joins matches and what lies between them into the parts that a behavior asks for.
class PartJoiner {
 public:
  PartJoiner(std::string_view text, SplitBehavior behavior, const TakePart& take)
      : text_(text), behavior_(behavior), take_(take) {}

  void add(std::size_t begin, std::size_t end, bool is_match) {
    if (begin == end) return;
    if (!joins(is_match)) flush(begin);
    if (is_match && behavior_ == SplitBehavior::removed) begin_ = end;
    end_ = end;
    was_match_ = is_match;
  }
  void finish() { flush(end_); }

 private:
  // Whether the next piece belongs to the part that is open.
  bool joins(bool is_match) const {
    switch (behavior_) {
      case SplitBehavior::contiguous:
        return is_match == was_match_;
      case SplitBehavior::merged_with_previous:
        return is_match && !was_match_;
      case SplitBehavior::merged_with_next:
        return !is_match && was_match_;
      case SplitBehavior::isolated:
      case SplitBehavior::removed:
        return false;
    }
    return false;
  }
  void flush(std::size_t next_begin) {
    if (begin_ < end_) take_(text_.substr(begin_, end_ - begin_));
    begin_ = next_begin;
  }

  std::string_view text_;
  SplitBehavior behavior_;
  const TakePart& take_;
  std::size_t begin_ = 0, end_ = 0;  // of the open part
  bool was_match_ = false;
};

void split(const SplitStep& step, std::string_view text, const TakePart& take) {
  PartJoiner joiner(text, step.behavior, take);
  std::size_t done = 0;
  const auto add = [&](std::size_t begin, std::size_t end) {
    joiner.add(done, begin, step.inverted);
    joiner.add(begin, end, !step.inverted);
    done = end;
  };
  step.pattern.for_each_match(text, std::cref(add));
  joiner.add(done, text.size(), step.inverted);
  joiner.finish();
}

std::string with_marks(const MarkStep& step, std::string_view text, bool begins_text) {
  std::string marked;
  for (const char c : text) {
    if (c == ' ')
      marked += step.mark;
    else
      marked += c;
  }
  const bool is_wanted =
      step.prefix == PrefixRule::always || (step.prefix == PrefixRule::first && begins_text);
  return is_wanted && !marked.starts_with(step.mark) ? step.mark + marked : marked;
}

// A part begins at each mark.
void split_before(std::string_view mark, std::string_view text, const TakePart& take) {
  while (!text.empty()) {
    const std::size_t skipped = text.starts_with(mark) ? mark.size() : 0;
    const std::string_view part = text.substr(0, text.find(mark, skipped));
    take(part);
    text.remove_prefix(part.size());
  }
}

}  // namespace

void PreTokenizer::for_each_word(std::string_view text, bool begins_text,
                                 const TakeWord& take) const {
  if (!text.empty()) run(0, text, begins_text, take);
}

void PreTokenizer::run(std::size_t number, std::string_view text, bool begins_text,
                       const TakeWord& take) const {
  if (number == steps_.size()) return take(text);
  std::string changed;
  const SplitterStep& step = steps_[number];
  const auto* marks = std::get_if<MarkStep>(&step);
  if (marks != nullptr)
    text = changed = with_marks(*marks, text, begins_text);
  else if (std::holds_alternative<SpaceStep>(step) && !text.starts_with(' '))
    text = changed = std::string(" ").append(text);

  // By reference, lest a word cost an allocation.
  const auto next = [&](std::string_view part) {
    run(number + 1, part, begins_text && part.data() == text.data(), take);
  };
  const TakePart go_on = std::cref(next);
  if (const auto* pattern = std::get_if<SplitStep>(&step))
    split(*pattern, text, go_on);
  else if (marks != nullptr && marks->splits)
    split_before(marks->mark, text, go_on);
  else
    go_on(text);
}

}  // namespace switchyard::bpe
