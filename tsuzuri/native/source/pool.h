// Threads that share out the phases of a run.
//
// A run is a list of phases; a phase is a number of units, any of which may run at the same time. A phase begins when every
// unit of the one before is done. What is waited for is the *units*, never the threads: a thread that the system has put aside
// between two units holds nobody up, the others do its share. A thread that finds nothing to do spins for a few microseconds
// and then sleeps, so that a busy neighbour gets the processor.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace tsuzuri {

struct Phase {
    int64_t units;
    int64_t grain;  // fewest units that are worth being taken at once
};

class Pool {
   public:
    using Work = void (*)(void* context, int phase, int64_t begin, int64_t end, int worker);
    static constexpr int MOST_PHASES = 8192;

    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return count_; }
    // Runs all phases and returns. One run at a time: a second caller waits.
    void run(const std::vector<Phase>& phases, Work work, void* context);

   private:
    struct alignas(128) Slot {
        std::atomic<uint64_t> next{0};  // epoch << 32 | first unit that nobody has taken
        alignas(64) std::atomic<uint64_t> done{0};  // epoch << 32 | units that are done
        std::atomic<uint32_t> units{0}, grain{1};
    };

    void live(int worker);
    void take_part(uint32_t epoch, int worker);
    template <class Ready>
    void wait(Ready ready, int64_t spin_nanoseconds);
    void wake();

    const int count_;
    std::vector<std::thread> workers_;
    std::vector<Slot> slots_;
    std::mutex one_run_;
    alignas(64) std::atomic<uint32_t> epoch_{0};
    std::atomic<int> phases_{0};
    std::atomic<Work> work_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<bool> ending_{false};
    alignas(64) std::atomic<uint32_t> signal_{0};  // what sleepers sleep on
    std::atomic<int> sleepers_{0};
};

}  // namespace tsuzuri
