// From the loader to Rust, on every processor: 32 bits without paging, then 64 bits with the first
// 4 GiB mapped to themselves.

// The PVH note: where the loader jumps to (Xen's XEN_ELFNOTE_PHYS32_ENTRY).
.section .note.pvh, "a", @note
.balign 4
.long 4, 8, 18
.asciz "Xen"
.quad pvh_start

.section .boot.data, "aw"
.balign 4096
.globl pml4
pml4:
    .quad pdpt + 3
    .fill 511, 8, 0
pdpt: // pages of 1 GiB
    .quad 0x83, 0x40000083, 0x80000083, 0xc0000083
    .fill 508, 8, 0
gdt: // null, code of 64 bits, data, code of 32 bits
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_end:
.globl start_info
start_info:
    .long 0
tickets: // the next processor's number
    .long 0

.section .boot, "ax"
.code32
.globl pvh_start
pvh_start:
    cli
    movl %ebx, start_info
enter_long_mode:
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x620, %eax // PAE, and SSE with its exceptions
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax // EFER.LME
    wrmsr
    movl $0x80010033, %eax // paging, write protection, no emulation of the FPU
    movl %eax, %cr0
    lgdtl gdt_pointer
    ljmpl $0x08, $long_mode

// The other processors begin here, in 16 bits, at a copy of this at TRAMPOLINE.
.code16
.globl trampoline
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (gdt_pointer - trampoline)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $0x18, $protected_mode
.balign 4
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
.globl trampoline_end
trampoline_end:

.code32
protected_mode:
    movw $0x10, %ax
    movw %ax, %ds
    jmp enter_long_mode

.code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $1, %edi
    lock xaddl %edi, tickets
    cmpl $8, %edi // as many as there are stacks
    jae 1f
    leal 1(%rdi), %eax
    shll $16, %eax
    leaq boot_stacks(%rax), %rsp
    xorl %ebp, %ebp
    call start
1:  hlt
    jmp 1b

.section .bss
.balign 16
boot_stacks:
    .skip 8 * 65536
