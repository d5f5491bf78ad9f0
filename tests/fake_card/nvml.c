/* What the NVIDIA driver says of cards that are not there: FAKE_CARDS, FAKE_TOTAL and FAKE_FREE (GiB), FAKE_CUDA, FAKE_CAPABILITY; the
   status of its start is FAKE_INIT_STATUS, that of a card's memory FAKE_MEMORY_STATUS. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double setting(const char *name, double otherwise) {
    const char *value = getenv(name);
    return value ? atof(value) : otherwise;
}

int nvmlInitWithFlags(unsigned flags) { return (int)setting("FAKE_INIT_STATUS", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int status) { return "an error that pynvml has no name for"; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)setting("FAKE_CARDS", 1);
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(long)(index + 1);
    return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    strncpy(text, "NVIDIA GeForce RTX 4090", size);
    return 0;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    snprintf(text, size, "GPU-%ld", (long)handle - 1);
    return 0;
}
struct memory {
    unsigned long long total, free, used;
};
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    memory->total = (unsigned long long)(setting("FAKE_TOTAL", 24) * (1 << 30));
    memory->free = (unsigned long long)(setting("FAKE_FREE", 23.5) * (1 << 30));
    memory->used = memory->total - memory->free;
    return (int)setting("FAKE_MEMORY_STATUS", 0);
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    double capability = setting("FAKE_CAPABILITY", 8.9);
    *major = (int)capability;
    *minor = (int)(10 * (capability - *major) + 0.5);
    return 0;
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    strncpy(text, "580.65", size);
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = (int)setting("FAKE_CUDA", 13000);
    return 0;
}
