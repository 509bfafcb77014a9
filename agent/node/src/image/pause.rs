//! The sandbox's image: one program that holds a pod's namespaces and buries its orphans.
//!
//! The program is so small that its machine code stands here. As process 1 of a pod it must
//!   - end on SIGTERM and SIGINT, which the kernel withholds from a process 1 that has no handler: it blocks them, and
//!     what is blocked is kept for `rt_sigtimedwait`;
//!   - reap whatever dies without a parent, when the pod's containers share its process namespace.
//!
//! In C:
//! ```c
//! sigprocmask(SIG_BLOCK, {SIGINT, SIGTERM, SIGCHLD}, 0);
//! for (;;) switch (sigtimedwait({SIGINT, SIGTERM, SIGCHLD}, 0, 0)) {
//!     case SIGINT: case SIGTERM: exit_group(0);
//!     case SIGCHLD: while (wait4(-1, 0, WNOHANG, 0) > 0);
//! }
//! ```

use super::Architecture;
use super::oci::{self, BuildError, Content, File, ImageConfig};

#[cfg(test)]
mod tests;

/// The name under which the runtime's configuration has it.
pub const REFERENCE: &str = "keelson.local/pause:1";

/// The image of the sandbox for one architecture.
///
/// # Errors
/// [`BuildError`] if `reference` can't be an image's name.
pub fn image(reference: &str, architecture: Architecture) -> Result<Vec<u8>, BuildError> {
    let program = File { path: "pause".to_owned(), mode: 0o755, content: Content::Bytes(program(architecture)) };
    let config = ImageConfig { entrypoint: vec!["/pause".to_owned()], ..ImageConfig::new(architecture) };
    oci::build(reference, &[program], &config)
}

/// The program as an ELF file.
pub fn program(architecture: Architecture) -> Vec<u8> {
    match architecture {
        Architecture::Amd64 => elf(architecture, &AMD64),
        Architecture::Arm64 => elf(architecture, &ARM64.map(u32::to_le_bytes).concat()),
    }
}

/// The mask 0x14002 has the bits of SIGINT (2), SIGTERM (15) and SIGCHLD (17), each at its number less one.
/// System calls: rt_sigprocmask 14, rt_sigtimedwait 128, wait4 61, exit_group 231.
#[rustfmt::skip]
const AMD64: [u8; 0x52] = [
    0x68, 0x02, 0x40, 0x01, 0x00, // 00        push 0x14002     the mask, at rsp from now on
    0x31, 0xff,                   // 05        xor edi, edi     SIG_BLOCK
    0x48, 0x89, 0xe6,             // 07        mov rsi, rsp     which
    0x31, 0xd2,                   // 0a        xor edx, edx     not interested in the old ones
    0x6a, 0x08,                   // 0c        push 8           bytes of a mask
    0x41, 0x5a,                   // 0e        pop r10
    0x6a, 0x0e,                   // 10        push 14
    0x58,                         // 12        pop rax
    0x0f, 0x05,                   // 13        syscall          rt_sigprocmask
    0x48, 0x89, 0xe7,             // 15 wait:  mov rdi, rsp     for which
    0x31, 0xf6,                   // 18        xor esi, esi     no details
    0x31, 0xd2,                   // 1a        xor edx, edx     for ever
    0x6a, 0x08,                   // 1c        push 8
    0x41, 0x5a,                   // 1e        pop r10
    0xb8, 0x80, 0x00, 0x00, 0x00, // 20        mov eax, 128
    0x0f, 0x05,                   // 25        syscall          rt_sigtimedwait: eax = the signal, or an error < 0
    0x3c, 0x0f,                   // 27        cmp al, 15       SIGTERM
    0x74, 0x1e,                   // 29        je exit
    0x3c, 0x02,                   // 2b        cmp al, 2        SIGINT
    0x74, 0x1a,                   // 2d        je exit
    0x3c, 0x11,                   // 2f        cmp al, 17       SIGCHLD
    0x75, 0xe2,                   // 31        jne wait
    0x6a, 0xff,                   // 33 reap:  push -1          any child
    0x5f,                         // 35        pop rdi
    0x31, 0xf6,                   // 36        xor esi, esi     no status
    0x6a, 0x01,                   // 38        push 1           WNOHANG
    0x5a,                         // 3a        pop rdx
    0x45, 0x31, 0xd2,             // 3b        xor r10d, r10d   no usage
    0x6a, 0x3d,                   // 3e        push 61
    0x58,                         // 40        pop rax
    0x0f, 0x05,                   // 41        syscall          wait4
    0x85, 0xc0,                   // 43        test eax, eax
    0x7f, 0xec,                   // 45        jg reap          one signal may stand for many deaths
    0xeb, 0xcc,                   // 47        jmp wait
    0x31, 0xff,                   // 49 exit:  xor edi, edi
    0xb8, 0xe7, 0x00, 0x00, 0x00, // 4b        mov eax, 231
    0x0f, 0x05,                   // 50        syscall          exit_group
];

/// As above. System calls: rt_sigprocmask 135, rt_sigtimedwait 137, wait4 260, exit_group 94.
#[rustfmt::skip]
const ARM64: [u32; 33] = [
    0xd288_0049, // 00        mov  x9, #0x4002
    0xf2a0_0029, // 04        movk x9, #0x1, lsl #16
    0xf81f_0fe9, // 08        str  x9, [sp, #-16]!     the mask, at sp from now on
    0xd280_0000, // 0c        mov  x0, #0              SIG_BLOCK
    0x9100_03e1, // 10        mov  x1, sp
    0xd280_0002, // 14        mov  x2, #0
    0xd280_0103, // 18        mov  x3, #8
    0xd280_10e8, // 1c        mov  x8, #135
    0xd400_0001, // 20        svc  #0                  rt_sigprocmask
    0x9100_03e0, // 24 wait:  mov  x0, sp
    0xd280_0001, // 28        mov  x1, #0
    0xd280_0002, // 2c        mov  x2, #0
    0xd280_0103, // 30        mov  x3, #8
    0xd280_1128, // 34        mov  x8, #137
    0xd400_0001, // 38        svc  #0                  rt_sigtimedwait
    0x7100_3c1f, // 3c        cmp  w0, #15
    0x5400_01c0, // 40        b.eq exit
    0x7100_081f, // 44        cmp  w0, #2
    0x5400_0180, // 48        b.eq exit
    0x7100_441f, // 4c        cmp  w0, #17
    0x54ff_fea1, // 50        b.ne wait
    0x9280_0000, // 54 reap:  mov  x0, #-1
    0xd280_0001, // 58        mov  x1, #0
    0xd280_0022, // 5c        mov  x2, #1
    0xd280_0003, // 60        mov  x3, #0
    0xd280_2088, // 64        mov  x8, #260
    0xd400_0001, // 68        svc  #0                  wait4
    0x7100_001f, // 6c        cmp  w0, #0
    0x54ff_ff2c, // 70        b.gt reap
    0x17ff_ffec, // 74        b    wait
    0xd280_0000, // 78 exit:  mov  x0, #0
    0xd280_0bc8, // 7c        mov  x8, #94
    0xd400_0001, // 80        svc  #0                  exit_group
];

/// Bytes of the file header and of two program headers; code follows.
const HEADERS: u16 = 64 + 2 * 56;
/// Where the file is mapped.
const BASE: u64 = 0x40_0000;
/// The largest page of either machine.
const PAGE: u64 = 0x1_0000;

/// A static program: one segment, readable and executable, that is the whole file; and a stack that isn't executable.
///
/// Source: System V ABI, chapters 4 and 5; `elf.h`.
fn elf(architecture: Architecture, code: &[u8]) -> Vec<u8> {
    let length = u64::from(HEADERS) + code.len() as u64;
    let mut file = Vec::new();
    // e_ident: magic, 64 bits, little-endian, version 1, System V, padding.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(2_u16.to_le_bytes()); // e_type: ET_EXEC
    file.extend(architecture.elf_machine().to_le_bytes());
    file.extend(1_u32.to_le_bytes()); // e_version
    file.extend((BASE + u64::from(HEADERS)).to_le_bytes()); // e_entry
    file.extend(64_u64.to_le_bytes()); // e_phoff
    file.extend(0_u64.to_le_bytes()); // e_shoff: no sections
    file.extend(0_u32.to_le_bytes()); // e_flags
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    for half in [64_u16, 56, 2, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    program_header(&mut file, 1, 0b101, [BASE, length, PAGE]); // PT_LOAD, read and execute
    program_header(&mut file, 0x6474_e551, 0b110, [0, 0, 16]); // PT_GNU_STACK, read and write
    assert_eq!(file.len(), usize::from(HEADERS));
    file.extend(code);
    file
}

fn program_header(file: &mut Vec<u8>, kind: u32, flags: u32, [address, length, align]: [u64; 3]) {
    file.extend(kind.to_le_bytes());
    file.extend(flags.to_le_bytes());
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    for word in [0, address, address, length, length, align] {
        file.extend(word.to_le_bytes());
    }
}
