/* Answers CPUID as an older processor: one with AVX2 and nothing newer, or with AVX-512 and of what
 * came after it nothing, VNNI, or VNNI and BF16. It stays in the builder and is never shipped.
 *
 * Preloaded beside a copy of ONNX Runtime in which every `cpuid` is the trapping `ud2`
 * (kernels/cap.py makes it). The trap lands here; the real CPUID is asked, the features to hide
 * are taken off, and execution goes on behind the instruction, at full speed.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

/* Leaf 7, subleaf 0 */
enum { EBX_AVX512 = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31) };
enum { ECX_AVX512 = BIT(1) | BIT(6) | BIT(12) | BIT(14), ECX_AVX512_VNNI = BIT(11) };
enum { EDX_AVX512 = BIT(2) | BIT(3) | BIT(8), EDX_AMX_AND_FP16 = BIT(22) | BIT(23) | BIT(24) | BIT(25) };
/* Leaf 7, subleaf 1 */
enum { EAX_AVX_VNNI = BIT(4), EAX_AVX512_BF16 = BIT(5), EAX_AMX_AND_IFMA = BIT(21) | BIT(23) };
enum { EDX_AVX_VNNI_INT8_AVX10 = BIT(4) | BIT(5) | BIT(10) | BIT(19) };

static const uint8_t UD2[2] = {0x0f, 0x0b};
static unsigned long answered;
static int keeps_avx512, keeps_vnni, keeps_bf16;

/* How many CPUIDs were answered: 0 says that the cap is not in force. */
unsigned long mask_cpuid_answered(void) { return answered; }

static void on_trap(int signal_number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
    uint32_t eax, ebx, ecx, edx;

    (void)info;
    if (memcmp((const void *)registers[REG_RIP], UD2, sizeof UD2) != 0) {
        signal(signal_number, SIG_DFL); /* a real illegal instruction: trap again, and die */
        return;
    }
    __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
    if (leaf == 7 && subleaf == 0) {
        edx &= ~(uint32_t)EDX_AMX_AND_FP16;
        if (!keeps_vnni)
            ecx &= ~(uint32_t)ECX_AVX512_VNNI;
        if (!keeps_avx512) {
            ebx &= ~(uint32_t)EBX_AVX512;
            ecx &= ~(uint32_t)ECX_AVX512;
            edx &= ~(uint32_t)EDX_AVX512;
        }
    } else if (leaf == 7 && subleaf == 1) {
        eax &= ~(uint32_t)EAX_AMX_AND_IFMA;
        if (!keeps_vnni)
            eax &= ~(uint32_t)EAX_AVX_VNNI;
        if (!keeps_bf16)
            eax &= ~(uint32_t)EAX_AVX512_BF16;
        edx &= ~(uint32_t)EDX_AVX_VNNI_INT8_AVX10;
    }
    registers[REG_RAX] = eax;
    registers[REG_RBX] = ebx;
    registers[REG_RCX] = ecx;
    registers[REG_RDX] = edx;
    registers[REG_RIP] += sizeof UD2;
    answered++;
}

__attribute__((constructor)) static void install(void)
{
    struct sigaction action;
    const char *level = getenv("STOKER_CPU_CAP");

    keeps_avx512 = level != NULL && strncmp(level, "AVX512_CORE", 11) == 0;
    keeps_bf16 = level != NULL && strcmp(level, "AVX512_CORE_BF16") == 0;
    keeps_vnni = keeps_bf16 || (level != NULL && strcmp(level, "AVX512_CORE_VNNI") == 0);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, 0);
}
