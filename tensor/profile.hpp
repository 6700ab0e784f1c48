// Where the time of a step goes, and on the plan device the work of a step: exclusive seconds,
// floating-point operations, bytes of memory and bytes on the wire, by part. Scopes nest; while an
// inner scope is open the outer one's clock stands still, so the parts add up to the whole.
// One thread of a process uses a Profile.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>

namespace switchyard {

enum class Part : std::uint8_t {
  other,      // whatever no scope covers
  data,       // waiting for the loader
  embedding,  // embedding, norms, residual additions, dropout
  attention,
  router,
  dispatch,
  experts,    // experts and dense feed-forward layers
  combine,
  head,       // output projection and loss
  reduction,  // of gradients over replicas
  optimizer,  // norm, AdamW, gathering and packing of the new weights
};
inline constexpr int num_parts = 11;
std::string_view name_of(Part part);

struct Work {
  double flops = 0;       // a multiply-add counts two
  double bytes = 0;       // of memory read and written, counted once per operand
  double wire_bytes = 0;  // sent by this rank to others
};

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

  Profile() : since_(Clock::now()) {}
  void reset();                    // all figures to zero, the clock starts now
  void record(const Work& work);   // adds to the current part
  double seconds(Part part);       // up to now
  double total_seconds();          // since reset(): the sum over the parts
  const Work& work(Part part) const { return work_[index(part)]; }
  Work total_work() const;

 private:
  using Clock = std::chrono::steady_clock;
  static std::size_t index(Part part) { return static_cast<std::size_t>(part); }
  Part enter(Part part);  // returns the part that was current

  std::array<double, num_parts> seconds_{};
  std::array<Work, num_parts> work_{};
  Part current_ = Part::other;
  Clock::time_point since_;
};

}  // namespace switchyard
