// The order of work on a device. A device owns two streams: one on which kernels compute, one on
// which exchanges travel. Work that is put on a stream runs in that order, beside the host and
// beside the other stream; an Event is a point of such work that others can wait for.
//
// On the CPU work runs while it is put there, so a stream never holds anything back and whoever
// waits for an exchange is the host itself.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

namespace switchyard {

class Event;

// A moment in the order of a stream, which alone knows when it came; a number to all others.
struct TimePoint {
  std::int64_t number = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Done when all that was put on this stream so far is.
  virtual Event record() = 0;
  // The host waits until nothing is left on this stream.
  virtual void wait_host() = 0;
  // Time. The moment when all that was put on this stream so far is done; it waits for nothing and
  // costs little.
  virtual TimePoint mark() = 0;
  virtual bool has_come(TimePoint point) = 0;
  // The host waits until both have come.
  virtual double seconds_between(TimePoint from, TimePoint to) = 0;
  // Nobody will ask for moments before this one any more.
  virtual void forget_before(TimePoint first_kept) = 0;
  // The library's own handle (cudaStream_t); null where work runs while it is put on the stream.
  virtual void* native() const { return nullptr; }

 protected:
  Stream() = default;
};

// A stream of a device whose work runs at once.
class ImmediateStream final : public Stream {
 public:
  Event record() override;
  void wait_host() override {}
  // Moments of the host's clock.
  TimePoint mark() override;
  bool has_come(TimePoint) override { return true; }
  double seconds_between(TimePoint from, TimePoint to) override;
  void forget_before(TimePoint) override {}
};

// Work under way: an exchange, or what a stream holds. Move-only. Destruction waits and reports
// what fails; while an exception unwinds it waits for half a second at most, since the other ranks
// may have left the exchange. What waiting throws, test() throws, too; the event is then done.
class Event {
 public:
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual bool test() = 0;  // advances; true once the work is complete
    virtual void wait_host() = 0;
    // What is put on `stream` from now on runs after the work. Without queues the host waits.
    virtual void wait(Stream& /*stream*/) { wait_host(); }
  };

  Event() = default;  // already done
  explicit Event(std::unique_ptr<Pending> pending) : pending_(std::move(pending)) {}
  Event(Event&&) noexcept = default;
  Event& operator=(Event&& other) noexcept;
  ~Event();

  // Advances; true once the work is complete. Only for whoever moves an exchange on: when something
  // is complete depends on the time, so nothing that other ranks must do alike may follow from it.
  bool test();
  // What is put on `stream` from now on runs after the work; the event is then done for its holder.
  void wait(Stream& stream);
  // The host waits. Only where it reads what the work left.
  void wait_host();

 private:
  void finish() noexcept;

  std::unique_ptr<Pending> pending_;
};

}  // namespace switchyard
