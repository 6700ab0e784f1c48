// Where the time of a step goes, and on the plan device the work of a step: exclusive seconds,
// floating-point operations, bytes of memory and bytes on the wire, by part. Scopes nest; while an
// inner scope is open the outer one's clock stands still, so the parts add up to the whole.
// Seconds are those of a stream: from the moment when what was put on it before a scope is done to
// the moment when what the scope put there is. Nobody waits for these moments before somebody asks.
// One thread of a process uses a Profile.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tensor/stream.hpp"

namespace switchyard {

enum class Part : std::uint8_t {
  other,      // whatever no scope covers
  data,       // waiting for the loader
  embedding,  // embedding, norms, residual additions, dropout
  attention,
  router,
  dispatch,
  experts,  // experts and dense feed-forward layers
  combine,
  head,       // output projection and loss
  reduction,  // of gradients over replicas
  optimizer,  // norm, AdamW, gathering and packing of the new weights
  spill,      // waiting for spilled activations
};
inline constexpr int num_parts = 12;
std::string_view name_of(Part part);

struct Work {
  double flops = 0;       // a multiply-add counts two
  double bytes = 0;       // of memory read and written, counted once per operand
  double wire_bytes = 0;  // sent by this rank to others
  // Control: small numbers that ranks tell each other (counts, losses, norms). Of those that are
  // tensors the bytes are among wire_bytes, too; those of the host are counted by the plan alone.
  double control_bytes = 0;
  double control_messages = 0;

  Work& operator+=(const Work& more);
};

// Where a rank is in its step, for whoever watches it: plain numbers, so that they can lie in
// memory that other processes read.
struct StepPlace {
  std::uint64_t num_changes = 0;
  std::int64_t step = 0;
  std::int32_t layer = -1;  // -1: outside the layers
  Part part = Part::other;
  bool backward = false;
};

// The begin of a part, for whoever keeps a time line.
struct PartMark {
  Part part = Part::other;
  TimePoint time;
  std::int32_t layer = -1;  // as in StepPlace
  bool backward = false;
};

class WorkRecord;
struct WorkUnit;

class Profile {
 public:
  // Marks a part from construction to destruction.
  class Scope {
   public:
    Scope(Profile& profile, Part part) : profile_(profile), outer_(profile.enter(part)) {}
    ~Scope() { profile_.enter(outer_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Profile& profile_;
    Part outer_;
  };

  // What is recorded from construction to destruction counts `times`: one pass that stands for
  // several alike.
  class Repeat {
   public:
    Repeat(Profile& profile, std::int64_t times) : profile_(profile), outer_(profile.times_) {
      profile.times_ *= times;
    }
    ~Repeat() { profile_.times_ = outer_; }
    Repeat(const Repeat&) = delete;
    Repeat& operator=(const Repeat&) = delete;

   private:
    Profile& profile_;
    std::int64_t outer_;
  };

  // Marks exchanges of tensors that are control.
  class ControlScope {
   public:
    explicit ControlScope(Profile& profile) : profile_(profile) { profile_.in_control_ = true; }
    ~ControlScope() { profile_.in_control_ = false; }
    ControlScope(const ControlScope&) = delete;
    ControlScope& operator=(const ControlScope&) = delete;

   private:
    Profile& profile_;
  };
  bool in_control() const { return in_control_; }

  // Marks a layer, in one direction.
  class LayerScope {
   public:
    LayerScope(Profile& profile, std::int64_t layer, bool backward) : place_(profile.place_) {
      if (place_ != nullptr) move(static_cast<std::int32_t>(layer), backward);
    }
    ~LayerScope() {
      if (place_ != nullptr) move(-1, false);
    }
    LayerScope(const LayerScope&) = delete;
    LayerScope& operator=(const LayerScope&) = delete;

   private:
    void move(std::int32_t layer, bool backward) {
      place_->layer = layer;
      place_->backward = backward;
      ++place_->num_changes;
    }
    StepPlace* place_;
  };

  // clock: outlives the profile.
  explicit Profile(Stream& clock) : clock_(clock), begins_{{Part::other, clock.mark()}} {}
  // From now on `place` says where the computation is. It outlives this object.
  void publish_to(StepPlace& place) { place_ = &place; }
  // From now on each begin of a part is added to `marks`, too, and its moment stays known; null: no
  // longer. `marks` outlives that.
  void keep_marks_in(std::vector<PartMark>* marks);
  void enter_step(std::int64_t step);
  void reset();                   // all figures to zero, the clock starts now
  void record(const Work& work);  // adds to the current part, as often as a Repeat says
  // From now on what is done is noted in `record`, too, in its order (tensor/work_record.hpp);
  // null: no longer. Of plan devices. `record` outlives that.
  void keep_work_in(WorkRecord* record) { work_record_ = record; }
  bool keeps_work() const { return work_record_ != nullptr; }
  // Adds to the record alone, if one is kept. An exchange's number is returned; else 0.
  std::int64_t note(const WorkUnit& unit);
  void note_wait(std::int64_t exchange);         // of the compute stream
  std::int64_t times() const { return times_; }  // that what is recorded now counts
  // Up to now. The host waits for the stream.
  double seconds(Part part);
  double total_seconds();  // since reset(): the sum over the parts
  // Up to where the stream has come: nobody waits.
  double known_seconds(Part part);
  const Work& work(Part part) const { return work_[index(part)]; }
  Work total_work() const;
  // All that was ever recorded; reset() leaves it.
  const Work& work_ever() const { return work_ever_; }

 private:
  // A part from then on, to the next one's begin.
  struct Begin {
    Part part;
    TimePoint time;
  };
  // So many are kept while nobody asks; then those of the older half are waited for.
  static constexpr std::size_t most_begins = 8192;
  static std::size_t index(Part part) { return static_cast<std::size_t>(part); }
  Part current() const { return begins_.back().part; }
  void keep_mark();              // of the part that is current
  Part enter(Part part);         // returns the part that was current
  void settle(std::size_t end);  // adds up the parts before begins_[end]

  std::array<double, num_parts> seconds_{};
  std::array<Work, num_parts> work_{};
  Work work_ever_;
  Stream& clock_;
  std::vector<Begin> begins_;  // the last one: what is current
  std::int64_t times_ = 1;
  StepPlace* place_ = nullptr;  // may be null: nobody watches
  bool in_control_ = false;
  std::vector<PartMark>* marks_ = nullptr;  // may be null
  WorkRecord* work_record_ = nullptr;       // likewise
};

}  // namespace switchyard
