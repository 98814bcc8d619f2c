// NVIDIA's driver on a CPU: libcuda.so.1 with the functions that retinart calls, so that the real
// cuda-bindings package and our own calls run whole where there is no GPU. Device memory is the host's.
// Work on a stream runs when a thread waits for it, so what reads too early gets wrong values. Kernels
// are the shipped sources, compiled for the CPU. It refuses what CUDA refuses, and host memory that is
// not page-locked as well, which CUDA would copy in a slower way.
//
// FAULT in the environment breaks one thing on purpose: see `fault` below.
#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

typedef unsigned long long Address;
typedef std::function<void()> Work;

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_PTX = 218, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900,
       CAPTURE_INVALIDATED = 901 };

struct Graph { std::vector<Work> work; };
struct Stream {
    std::vector<Work> queue;
    Graph* captured = nullptr;
    bool broken = false;
    std::thread::id captured_by;
};
struct Event { double ms = 0; };
struct Function { std::string name; };

static std::recursive_mutex one;  // of all that is below
static std::map<Address, size_t> device, host;
static std::map<void*, std::string> alive;  // handles, by kind
static thread_local std::vector<void*> current;
static char contexts[1];
static const size_t TOTAL = (size_t)8 << 30;

static bool fault(const char* name)
{
    const char* wanted = std::getenv("FAULT");
    return wanted != nullptr && std::strcmp(wanted, name) == 0;
}

extern "C" void resize_on_cpu(const unsigned char*, int, int, unsigned char*, int, int, int, int,
                              int, int, int, int);
extern "C" void nms_on_cpu(const void*, const void*, const void*, int, int, int, int, int, int, int,
                           void*, void*, void*, void*, int, int, int);

#define LOCKED std::lock_guard<std::recursive_mutex> locked(one)
#define CONTEXT if (current.empty()) return INVALID_CONTEXT
#define HANDLE(thing, kind) if (alive.count(thing) == 0 || alive[thing] != kind) return INVALID_HANDLE

static bool within(const std::map<Address, size_t>& all, Address begin, size_t size)
{
    auto next = all.upper_bound(begin);
    if (next == all.begin()) return false;
    --next;
    return begin + size <= next->first + next->second;
}

// A call that may not be made while this thread captures breaks the capture, as in CUDA.
static bool breaks_capture()
{
    bool broke = false;
    for (auto& [handle, kind] : alive) {
        if (kind != "stream") continue;
        Stream* stream = (Stream*)handle;
        if (stream->captured && stream->captured_by == std::this_thread::get_id())
            broke = stream->broken = true;
    }
    return broke;
}

static int put(Stream* stream, Work work)
{
    if (stream->captured && stream->broken) return CAPTURE_INVALIDATED;
    (stream->captured ? stream->captured->work : stream->queue).push_back(std::move(work));
    return OK;
}

static void run(Stream* stream)
{
    while (!stream->queue.empty()) {
        std::vector<Work> now;
        now.swap(stream->queue);
        for (Work& work : now) work();
    }
}

extern "C" {

int cuInit(unsigned) { return OK; }
int cuDriverGetVersion(int* version) { *version = 13000; return OK; }
int cuDeviceGetCount(int* count) { *count = 1; return OK; }
int cuDeviceGet(int* gpu, int index) { *gpu = index; return index == 0 ? OK : INVALID_DEVICE; }
int cuDeviceGetName(char* name, int size, int) { std::strncpy(name, "stand-in", size); return OK; }
int cuDeviceGetAttribute(int* value, int which, int) { *value = which == 75 ? 8 : 9; return OK; }
int cuDevicePrimaryCtxRetain(void** context, int) { *context = contexts; return OK; }
int cuCtxPushCurrent_v2(void* context) { current.push_back(context); return OK; }
int cuCtxPopCurrent_v2(void** context)
{
    CONTEXT;
    *context = current.back();
    if (!fault("current")) current.pop_back();
    return OK;
}

int cuGetErrorName(int code, const char** name)
{
    static const std::map<int, const char*> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"}, {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}};
    const auto found = names.find(code);
    *name = found == names.end() ? nullptr : found->second;
    return found == names.end() ? INVALID_VALUE : OK;
}

int cuMemAlloc_v2(Address* address, size_t size)
{
    LOCKED; CONTEXT;
    if (breaks_capture()) return CAPTURE_UNSUPPORTED;
    if (size == 0) return INVALID_VALUE;
    if (size > TOTAL) return OUT_OF_MEMORY;
    void* memory = std::aligned_alloc(256, (size + 255) / 256 * 256);
    std::memset(memory, 0xAB, size);
    *address = (Address)memory;
    device[*address] = size;
    return OK;
}

int cuMemFree_v2(Address address)
{
    LOCKED; CONTEXT;
    if (breaks_capture()) return CAPTURE_UNSUPPORTED;
    if (fault("leak")) return OK;
    if (device.erase(address) == 0) return INVALID_VALUE;
    std::free((void*)address);
    return OK;
}

int cuMemHostAlloc(void** memory, size_t size, unsigned)
{
    LOCKED; CONTEXT;
    if (breaks_capture()) return CAPTURE_UNSUPPORTED;
    *memory = std::aligned_alloc(256, (size + 255) / 256 * 256);
    std::memset(*memory, 0xCD, size);
    host[(Address)*memory] = size;
    return OK;
}

int cuMemFreeHost(void* memory)
{
    LOCKED; CONTEXT;
    if (breaks_capture()) return CAPTURE_UNSUPPORTED;
    if (host.erase((Address)memory) == 0) return INVALID_VALUE;
    std::free(memory);
    return OK;
}

int cuMemGetInfo_v2(size_t* free, size_t* total)
{
    LOCKED; CONTEXT;
    *total = *free = TOTAL;
    for (const auto& [address, size] : device) *free -= size;
    return OK;
}

int cuStreamCreate(void** stream, unsigned flags)
{
    LOCKED; CONTEXT;
    if (flags != 1) return INVALID_VALUE;  // ours never wait for the legacy stream
    alive[*stream = new Stream] = "stream";
    return OK;
}

int cuStreamDestroy_v2(void* handle)
{
    LOCKED; HANDLE(handle, "stream");
    alive.erase(handle);
    delete (Stream*)handle;
    return OK;
}

int cuStreamSynchronize(void* handle)
{
    std::unique_lock<std::recursive_mutex> locked(one);
    HANDLE(handle, "stream");
    Stream* stream = (Stream*)handle;
    if (stream->captured) {
        stream->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    locked.unlock();  // a stream belongs to one thread at a time
    if (!fault("early")) run(stream);
    return OK;
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, void* handle)
{
    LOCKED; CONTEXT; HANDLE(handle, "stream");
    if (!within(device, to, size) || !within(host, (Address)from, size)) return INVALID_VALUE;
    if (fault("short copy")) --size;
    return put((Stream*)handle, [=] { std::memcpy((void*)to, from, size); });
}

int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, void* handle)
{
    LOCKED; CONTEXT; HANDLE(handle, "stream");
    if (!within(device, from, size) || !within(host, (Address)to, size)) return INVALID_VALUE;
    return put((Stream*)handle, [=] { std::memcpy(to, (void*)from, size); });
}

int cuLaunchHostFunc(void* handle, void (*function)(void*), void* data)
{
    LOCKED; CONTEXT; HANDLE(handle, "stream");
    return put((Stream*)handle, [=] { function(data); });
}

int cuStreamBeginCapture_v2(void* handle, int mode)
{
    LOCKED; HANDLE(handle, "stream");
    Stream* stream = (Stream*)handle;
    if (mode != 1 || stream->captured) return INVALID_VALUE;  // ours are thread-local
    stream->captured = new Graph;
    stream->captured_by = std::this_thread::get_id();
    stream->broken = false;
    return OK;
}

int cuStreamEndCapture(void* handle, void** graph)
{
    LOCKED; HANDLE(handle, "stream");
    Stream* stream = (Stream*)handle;
    if (!stream->captured) return INVALID_VALUE;
    Graph* made = stream->captured;
    stream->captured = nullptr;
    *graph = nullptr;
    if (stream->broken) {
        delete made;
        if (fault("recovery")) stream->captured = new Graph;
        return CAPTURE_INVALIDATED;
    }
    if (fault("capture runs")) for (Work& work : made->work) stream->queue.push_back(work);
    alive[*graph = made] = "graph";
    return OK;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long)
{
    LOCKED; HANDLE(graph, "graph");
    alive[*executable = new Graph(*(Graph*)graph)] = "executable";
    return OK;
}

int cuGraphLaunch(void* executable, void* handle)
{
    LOCKED; HANDLE(executable, "executable"); HANDLE(handle, "stream");
    static int launches = 0;
    if (fault("lost replay") && ++launches % 10 == 0) return OK;
    for (Work& work : ((Graph*)executable)->work) put((Stream*)handle, work);
    return OK;
}

static int destroy_graph(void* graph, const char* kind)
{
    LOCKED; HANDLE(graph, kind);
    alive.erase(graph);
    delete (Graph*)graph;
    return OK;
}

int cuGraphDestroy(void* graph) { return destroy_graph(graph, "graph"); }
int cuGraphExecDestroy(void* graph) { return destroy_graph(graph, "executable"); }

int cuEventCreate(void** event, unsigned)
{
    LOCKED; CONTEXT;
    alive[*event = new Event] = "event";
    return OK;
}

int cuEventDestroy_v2(void* event)
{
    LOCKED; HANDLE(event, "event");
    alive.erase(event);
    return OK;  // work on a stream may still write to it
}

int cuEventRecord(void* handle, void* stream)
{
    LOCKED; HANDLE(handle, "event"); HANDLE(stream, "stream");
    Event* event = (Event*)handle;
    return put((Stream*)stream, [=] {
        const auto now = std::chrono::steady_clock::now().time_since_epoch();
        event->ms = std::chrono::duration<double, std::milli>(now).count();
    });
}

int cuEventSynchronize(void* event)
{
    LOCKED; HANDLE(event, "event");
    for (auto& [handle, kind] : alive) if (kind == "stream") run((Stream*)handle);
    return OK;
}

int cuEventElapsedTime_v2(float* ms, void* begin, void* end)
{
    LOCKED; HANDLE(begin, "event"); HANDLE(end, "event");
    *ms = fault("clock") ? 0 : (float)(((Event*)end)->ms - ((Event*)begin)->ms);
    return OK;
}

int cuModuleLoadData(void** module, const void* image)
{
    LOCKED; CONTEXT;
    if (std::strstr((const char*)image, ".target sm_75") == nullptr) return INVALID_PTX;
    alive[*module = new std::string((const char*)image)] = "module";
    return OK;
}

int cuModuleGetFunction(void** function, void* module, const char* name)
{
    LOCKED; HANDLE(module, "module");
    const std::string entry = std::string(".entry ") + name + "(";
    if (((std::string*)module)->find(entry) == std::string::npos) return NOT_FOUND;
    alive[*function = new Function{name}] = "function";
    return OK;
}

#define ARGUMENT(type, i) (*(type*)arguments[i])

int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned, unsigned block_x,
                   unsigned block_y, unsigned, unsigned, void* stream, void** arguments, void**)
{
    LOCKED; CONTEXT; HANDLE(handle, "function"); HANDLE(stream, "stream");
    typedef unsigned char Byte;
    if (((Function*)handle)->name == "resize_to_frame") {
        int n[12];
        for (int i = 0; i < 12; ++i) n[i] = i == 0 || i == 3 ? 0 : ARGUMENT(int, i);
        const Address from = ARGUMENT(Address, 0), to = ARGUMENT(Address, 3);
        const size_t read = (size_t)n[1] * n[2] * 3, written = (size_t)n[4] * n[5] * 3;
        if (!within(device, from, read) || !within(device, to, written)) return INVALID_VALUE;
        if (grid_x * block_x < (unsigned)n[5] || grid_y * block_y < (unsigned)n[4])
            return INVALID_VALUE;
        const int red = fault("resize") ? n[10] + 1 : n[10];
        return put((Stream*)stream, [=] {
            resize_on_cpu((Byte*)from, n[1], n[2], (Byte*)to, n[4], n[5], n[6], n[7], n[8], n[9],
                          red, n[11]);
        });
    }
    void* p[14];
    int n[14];
    for (int i = 0; i < 14; ++i) {
        const bool pointer = i < 3 || i > 9;
        p[i] = pointer ? ARGUMENT(void*, i) : nullptr;
        n[i] = pointer ? 0 : ARGUMENT(int, i);
        if (pointer && !within(device, (Address)p[i], 1)) return INVALID_VALUE;
    }
    const int pairs = fault("nms") ? 50 : n[5];
    return put((Stream*)stream, [=] {
        LOCKED;  // the shim has one block
        nms_on_cpu(p[0], p[1], p[2], n[3], n[4], pairs, n[6], n[7], n[8], n[9], p[10], p[11], p[12],
                   p[13], grid_x, 4, -1);
    });
}

int cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* status)
{
    static void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = dlsym(self, (std::string(name) + "_v2").c_str());
    if (*function == nullptr) *function = dlsym(self, name);
    if (status != nullptr) *status = *function == nullptr ? 1 : 0;
    return *function == nullptr ? NOT_FOUND : OK;
}

}  // extern "C"
