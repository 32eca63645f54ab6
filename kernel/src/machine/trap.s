// Traps, the switch of tasks, and what the compiler takes for granted below `core`.

// One stub for each vector, 16 bytes apart. Where the processor pushes no error code, 0 stands for it.
.text
.balign 16
.globl trap_stubs
trap_stubs:
.set vector, 0
.rept 48
    .balign 16
    .if !((0x60227d00 >> vector) & 1)
    push 0
    .endif
    push vector
    jmp trap
    .set vector, vector + 1
.endr

// The state that Rust may change is saved as a `Frame`, and what it returns is restored: this frame or another.
trap:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    sub rsp, 512
    fxsave64 [rsp]
    cld
    mov rdi, rsp
    call on_trap
restore:
    mov rsp, rax
    fxrstor64 [rsp]
    add rsp, 512
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

// A task whose access has to wait goes on here, on its own stack, with the frame to return to in rdi.
.globl wait_then_restore
wait_then_restore:
    call wait_for_page
    jmp restore

// switch(save: *mut usize, to: usize): to another stack, whose top is what a switch left there.
.globl switch
switch:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov [rdi], rsp
    mov rsp, rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.globl first_switch
first_switch:
    mov rdi, rbx
    call task_main
    ud2

// Accesses to windows: the only instructions that may fault. They return 0, or what the handler puts
// into eax when it cannot bring the page: it then goes on at `window_failed`.
.globl window_begin
window_begin:
// window_load(address, out)
.globl window_load
window_load:
    mov rax, [rdi]
    mov [rsi], rax
    xor eax, eax
    ret
// window_store(address, value)
.globl window_store
window_store:
    mov [rdi], rsi
    xor eax, eax
    ret
// window_copy(to, from, words)
.globl window_copy
window_copy:
    mov rcx, rdx
    rep movsq
    xor eax, eax
    ret
// window_probe(address, pattern, out): a load in the middle of what compiled code does all the time.
// A function that calls none keeps values below rsp, in the red zone, and everyone keeps them in registers.
// Returns 100 if the red zone was touched, 101 for the registers.
.globl window_probe
window_probe:
    .set at, 1
    .rept 16
    mov [rsp - 8 * at], rsi
    .set at, at + 1
    .endr
    mov rcx, rsi
    mov r8, rsi
    mov r9, rsi
    mov r10, rsi
    mov r11, rsi
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movq xmm\n, rsi
    punpcklqdq xmm\n, xmm\n
    .endr
    mov rax, [rdi]
    mov [rdx], rax
    mov eax, 100
    .set at, 1
    .rept 16
    cmp [rsp - 8 * at], rsi
    jne 1f
    .set at, at + 1
    .endr
    .irp register, rcx, r8, r9, r10, r11
    cmp \register, rsi
    jne 2f
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movq rax, xmm\n
    cmp rax, rsi
    jne 2f
    punpckhqdq xmm\n, xmm\n
    movq rax, xmm\n
    cmp rax, rsi
    jne 2f
    .endr
    xor eax, eax
1:  ret
2:  mov eax, 101
    ret
.globl window_end
window_end:
.globl window_failed
window_failed:
    ret

// Unwinding never happens: the kernel ends on panic.
.globl rust_eh_personality
.globl _Unwind_Resume
rust_eh_personality:
_Unwind_Resume:
    ud2

.globl memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret
.globl memmove
memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx
    jae memcpy
    mov rax, rdi
    mov rcx, rdx
    lea rsi, [rsi + rcx - 1]
    lea rdi, [rdi + rcx - 1]
    std
    rep movsb
    cld
    ret
.globl memset
memset:
    mov r8, rdi
    movzx eax, sil
    mov rcx, 0x0101010101010101
    imul rax, rcx
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r8
    ret
.globl memcmp
.globl bcmp
memcmp:
bcmp:
    xor eax, eax
    mov rcx, rdx
    cmp rcx, rcx
    repe cmpsb
    je 1f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub eax, ecx
1:  ret
