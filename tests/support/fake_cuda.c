/* A CUDA that reports one H100 and does nothing: what torch asks of the runtime and the driver to describe a GPU's tensors.

   Preloaded, it is found before the real runtime; its name is that of the driver's library, which torch opens by it. It
   gives no memory: the tensors are torch's fake ones, which have a shape, a dtype and a device alone. */
#include <stddef.h>
#include <string.h>

#define MEMORY ((size_t)80 << 30)

struct cudaDeviceProp { /* of CUDA 13, as far as torch reads it here */
  char name[256], uuid[16], luid[8];
  unsigned int luidDeviceNodeMask;
  size_t totalGlobalMem, sharedMemPerBlock;
  int regsPerBlock, warpSize;
  size_t memPitch;
  int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
  size_t totalConstMem;
  int major, minor;
};

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
int cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return 0; }
int cudaDeviceSynchronize(void) { return 0; }
int cudaStreamSynchronize(void *stream) { return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
int cudaStreamGetCaptureInfo(void *stream, int *status) { *status = 0; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = 0; return 0; }
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = MEMORY; return 0; }
int cudaEventCreateWithFlags(void **event, unsigned int flags) { *event = event; return 0; }
int cudaEventDestroy(void *event) { return 0; }
int cudaEventRecord(void *event, void *stream) { return 0; }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned int flags) { return 0; }
int cudaEventSynchronize(void *event) { return 0; }
int cudaEventElapsedTime(float *milliseconds, void *from, void *to) { *milliseconds = 0; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned int *flags, int *active) { *flags = 0; *active = 1; return 0; }

static int nothing(void) { return 0; }
int cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned int version, unsigned long flags, int *status) {
  *found = (void *)nothing;
  *status = 0;
  return 0;
}

int cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
  strcpy(found->name, "NVIDIA H100 (fake)");
  found->totalGlobalMem = MEMORY;
  found->warpSize = 32;
  found->maxThreadsPerBlock = 1024;
  found->major = 9;
  found->minor = 0;
  return 0;
}
