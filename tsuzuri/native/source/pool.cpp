// See pool.h. Order of memory: `next` is claimed with acquire and published with release; `done` is a full barrier, because a
// sleeper announces itself and then looks at `done`, while the last worker counts and then looks for sleepers.
#include "pool.h"

#include <chrono>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#endif

namespace tsuzuri {

namespace {

constexpr int64_t SPIN_WITHIN = 20'000;    // ns: the pieces that others still work on are the smallest of a phase
constexpr int64_t SPIN_BETWEEN = 100'000;  // ns: between two steps a token is chosen

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__linux__)
void sleep_while(std::atomic<uint32_t>& word, uint32_t seen) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void wake_all(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
}
#else
std::mutex sleeping;
std::condition_variable woken;
void sleep_while(std::atomic<uint32_t>& word, uint32_t seen) {
    std::unique_lock<std::mutex> lock(sleeping);
    woken.wait(lock, [&] { return word.load() != seen; });
}
void wake_all(std::atomic<uint32_t>&) {
    std::lock_guard<std::mutex> lock(sleeping);
    woken.notify_all();
}
#endif

}  // namespace

Pool::Pool(int threads) : count_(threads < 1 ? 1 : threads), slots_(MOST_PHASES) {
    for (int worker = 1; worker < count_; worker++) workers_.emplace_back([this, worker] { live(worker); });
}

Pool::~Pool() {
    ending_.store(true);
    wake();
    for (auto& worker : workers_) worker.join();
}

void Pool::wake() {
    if (sleepers_.load() > 0) {
        signal_.fetch_add(1);
        wake_all(signal_);
    }
}

template <class Ready>
void Pool::wait(Ready ready, int64_t spin_nanoseconds) {
    if (ready()) return;
    const int64_t until = now() + spin_nanoseconds;
    do {
        for (int i = 0; i < 32; i++) {
            relax();
            if (ready()) return;
        }
    } while (now() < until);
    while (true) {
        sleepers_.fetch_add(1);
        const uint32_t seen = signal_.load();
        const bool already = ready();
        if (!already) sleep_while(signal_, seen);
        sleepers_.fetch_sub(1);
        if (already || ready()) return;
    }
}

void Pool::live(int worker) {
    uint32_t known = 0;
    while (true) {
        wait([&] { return epoch_.load(std::memory_order_acquire) != known || ending_.load(std::memory_order_relaxed); }, SPIN_BETWEEN);
        if (ending_.load()) return;
        known = epoch_.load();
        take_part(known, worker);
    }
}

void Pool::take_part(uint32_t epoch, int worker) {
    const int phases = phases_.load(std::memory_order_relaxed);
    for (int p = 0; p < phases; p++) {
        Slot& slot = slots_[p];
        uint64_t seen = slot.next.load(std::memory_order_acquire);
        const uint64_t units = slot.units.load(std::memory_order_relaxed), grain = slot.grain.load(std::memory_order_relaxed);
        while (true) {
            if (uint32_t(seen >> 32) != epoch) return;  // that run is over
            const uint64_t begin = uint32_t(seen);
            if (begin >= units) break;
            uint64_t take = (units - begin) / (2 * uint64_t(count_));  // large pieces first, small ones last
            take = take < grain ? grain : take;
            take = take < units - begin ? take : units - begin;
            if (!slot.next.compare_exchange_weak(seen, seen + take, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
            work_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), p, int64_t(begin), int64_t(begin + take), worker);
            if (uint32_t(slot.done.fetch_add(take)) + take == units) wake();
            seen = slot.next.load(std::memory_order_acquire);
        }
        wait(
            [&] {
                const uint64_t done = slot.done.load();
                return uint32_t(done >> 32) != epoch || uint32_t(done) >= units;
            },
            SPIN_WITHIN);
    }
}

void Pool::run(const std::vector<Phase>& phases, Work work, void* context) {
    std::lock_guard<std::mutex> alone(one_run_);
    const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
    work_.store(work, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    phases_.store(int(phases.size()), std::memory_order_relaxed);
    for (size_t p = 0; p < phases.size(); p++) {
        Slot& slot = slots_[p];
        slot.units.store(uint32_t(phases[p].units), std::memory_order_relaxed);
        slot.grain.store(uint32_t(phases[p].grain < 1 ? 1 : phases[p].grain), std::memory_order_relaxed);
        slot.done.store(uint64_t(epoch) << 32, std::memory_order_relaxed);
        slot.next.store(uint64_t(epoch) << 32, std::memory_order_release);
    }
    epoch_.store(epoch);
    if (count_ > 1) wake();
    take_part(epoch, 0);
}

}  // namespace tsuzuri
