package disasm

// locateCases are functions assembled by GNU as from asm (f is a call to the
// next instruction), checked against it where as is installed.
var locateCases = []locateCase{
	{
		name: "copied to a callee-saved register",
		asm:  `push %rbx; mov %rdi,%rbx; call f; Q1: pop %rbx; ret`,
		code: "534889fbe8000000005bc3",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "rbx"},
			{pc: 9, suspended: true, arg: 1, want: "lost"},
		},
	},
	{
		name: "register overwritten after the call",
		asm:  `push %rbx; mov %rdi,%rbx; call f; Q1: xor %ebx,%ebx; call f; Q2: pop %rbx; ret`,
		code: "534889fbe80000000031dbe8000000005bc3",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "rbx"},
			{pc: 16, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "restored by the epilogue",
		asm:  `push %rbx; mov %rdi,%rbx; call f; pop %rbx; call f; Q1: ret`,
		code: "534889fbe8000000005be800000000c3",
		asks: []ask{
			{pc: 15, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "overwritten on one of two paths",
		asm:  `push %rbx; mov %rdi,%rbx; test %esi,%esi; je 1f; mov %rsi,%rbx; 1: call f; Q1: pop %rbx; ret`,
		code: "534889fb85f674034889f3e8000000005bc3",
		asks: []ask{
			{pc: 16, suspended: true, arg: 0, want: "lost"},
			{pc: 16, suspended: true, arg: 1, want: "lost"},
		},
	},
	{
		name: "the same register by two paths",
		asm:  `push %rbx; test %esi,%esi; je 1f; mov %rdi,%rbx; jmp 2f; 1: mov %rdi,%rbx; 2: call f; Q1: pop %rbx; ret`,
		code: "5385f674054889fbeb034889fbe8000000005bc3",
		asks: []ask{
			{pc: 18, suspended: true, arg: 0, want: "rbx"},
		},
	},
	{
		name: "a spill and a copy, lost on one path each",
		asm:  `push %rbx; sub $16,%rsp; mov %rdi,%rbx; mov %rdi,8(%rsp); test %esi,%esi; je 1f; xor %ebx,%ebx; 1: call f; Q1: add $16,%rsp; pop %rbx; ret`,
		code: "534883ec104889fb48897c240885f6740231dbe8000000004883c4105bc3",
		asks: []ask{
			{pc: 24, suspended: true, arg: 0, want: "[CFA-0x18]"},
		},
	},
	{
		name: "overwritten in a loop before the call",
		asm:  `push %rbx; mov %rdi,%rbx; 1: call f; Q1: mov %rax,%rbx; test %eax,%eax; jne 1b; pop %rbx; ret`,
		code: "534889fbe8000000004889c385c075f45bc3",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "kept through a loop",
		asm:  `push %rbx; push %rbp; mov %rdi,%rbx; mov %esi,%ebp; 1: call f; Q1: dec %ebp; jne 1b; pop %rbp; pop %rbx; ret`,
		code: "53554889fb89f5e800000000ffcd75f75d5bc3",
		asks: []ask{
			{pc: 12, suspended: true, arg: 0, want: "rbx"},
			{pc: 12, suspended: true, arg: 1, want: "lost"},
		},
	},
	{
		name: "spilled below the frame pointer",
		asm:  `push %rbp; mov %rsp,%rbp; sub $32,%rsp; mov %rdi,-24(%rbp); mov %esi,-28(%rbp); call f; Q1: leave; ret`,
		code: "554889e54883ec2048897de88975e4e800000000c9c3",
		asks: []ask{
			{pc: 20, suspended: true, arg: 0, want: "[CFA-0x28]"},
			{pc: 20, suspended: true, arg: 1, want: "[CFA-0x2c]/32"},
		},
	},
	{
		name: "one byte of the slot overwritten",
		asm:  `sub $24,%rsp; mov %rdi,8(%rsp); movb $0,15(%rsp); call f; Q1: add $24,%rsp; ret`,
		code: "4883ec1848897c2408c644240f00e8000000004883c418c3",
		asks: []ask{
			{pc: 19, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "the neighbour of the slot overwritten",
		asm:  `sub $24,%rsp; mov %rdi,8(%rsp); movq $0,16(%rsp); movq $0,(%rsp); call f; Q1: add $24,%rsp; ret`,
		code: "4883ec1848897c240848c74424100000000048c7042400000000e8000000004883c418c3",
		asks: []ask{
			{pc: 31, suspended: true, arg: 0, want: "[CFA-0x18]"},
		},
	},
	{
		name: "a vector store over the slot",
		asm:  `sub $24,%rsp; mov %rdi,8(%rsp); movups %xmm0,(%rsp); call f; Q1: add $24,%rsp; ret`,
		code: "4883ec1848897c24080f110424e8000000004883c418c3",
		asks: []ask{
			{pc: 18, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "a VEX store beside the slot",
		asm:  `sub $56,%rsp; mov %rdi,40(%rsp); vmovdqu %ymm0,8(%rsp); call f; Q1: vzeroupper; add $56,%rsp; ret`,
		code: "4883ec3848897c2428c5fe7f442408e800000000c5f8774883c438c3",
		asks: []ask{
			{pc: 20, suspended: true, arg: 0, want: "[CFA-0x18]"},
		},
	},
	{
		name: "a VEX store over the slot",
		asm:  `sub $56,%rsp; mov %rdi,32(%rsp); vmovdqu %ymm0,8(%rsp); call f; Q1: add $56,%rsp; ret`,
		code: "4883ec3848897c2420c5fe7f442408e8000000004883c438c3",
		asks: []ask{
			{pc: 20, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "a slot below the stack pointer during a call",
		asm:  `mov %rdi,-16(%rsp); call f; Q1: ret`,
		code: "48897c24f0e800000000c3",
		asks: []ask{
			{pc: 10, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "a slot in the red zone",
		asm:  `mov %rdi,-16(%rsp); xor %edi,%edi; Q1: nop; ret`,
		code: "48897c24f031ff90c3",
		asks: []ask{
			{pc: 7, suspended: false, arg: 0, want: "[CFA-0x18]"},
		},
	},
	{
		name: "a slot below the red zone",
		asm:  `mov %rdi,-144(%rsp); xor %edi,%edi; Q1: nop; ret`,
		code: "4889bc2470ffffff31ff90c3",
		asks: []ask{
			{pc: 10, suspended: false, arg: 0, want: "lost"},
		},
	},
	{
		name: "pushed as a spill",
		asm:  `push %rdi; push %rsi; sub $8,%rsp; call f; Q1: add $24,%rsp; ret`,
		code: "57564883ec08e8000000004883c418c3",
		asks: []ask{
			{pc: 11, suspended: true, arg: 0, want: "[CFA-0x10]"},
			{pc: 11, suspended: true, arg: 1, want: "[CFA-0x18]"},
		},
	},
	{
		name: "the address of a lower neighbour given away",
		asm:  `sub $24,%rsp; mov %rdi,8(%rsp); mov %rsp,%rdi; call f; Q1: add $24,%rsp; ret`,
		code: "4883ec1848897c24084889e7e8000000004883c418c3",
		asks: []ask{
			{pc: 17, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "the address of a higher neighbour given away",
		asm:  `sub $24,%rsp; mov %rdi,(%rsp); lea 8(%rsp),%rdi; call f; Q1: add $24,%rsp; ret`,
		code: "4883ec1848893c24488d7c2408e8000000004883c418c3",
		asks: []ask{
			{pc: 18, suspended: true, arg: 0, want: "[CFA-0x20]"},
		},
	},
	{
		name: "an address given away earlier",
		asm:  `sub $40,%rsp; lea 8(%rsp),%rax; mov %rax,(%rsi); mov %rdi,16(%rsp); call f; Q1: add $40,%rsp; ret`,
		code: "4883ec28488d44240848890648897c2410e8000000004883c428c3",
		asks: []ask{
			{pc: 22, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "a frame address through a vector register",
		asm:  `sub $40,%rsp; mov %rdi,24(%rsp); lea 8(%rsp),%rax; movq %rax,%xmm0; movups %xmm0,(%rsi); call f; Q1: add $40,%rsp; ret`,
		code: "4883ec2848897c2418488d44240866480f6ec00f1106e8000000004883c428c3",
		asks: []ask{
			{pc: 27, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "store through an unknown index",
		asm:  `sub $40,%rsp; mov %rdi,24(%rsp); movq $0,(%rsp,%rsi,8); call f; Q1: add $40,%rsp; ret`,
		code: "4883ec2848897c241848c704f400000000e8000000004883c428c3",
		asks: []ask{
			{pc: 22, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "store through a pointer of the caller's",
		asm:  `sub $40,%rsp; mov %rdi,24(%rsp); movq $0,(%rsi,%rdx,8); call f; Q1: add $40,%rsp; ret`,
		code: "4883ec2848897c241848c704d600000000e8000000004883c428c3",
		asks: []ask{
			{pc: 22, suspended: true, arg: 0, want: "[CFA-0x18]"},
		},
	},
	{
		name: "string store into the frame",
		asm:  `push %rbx; sub $64,%rsp; mov %rdi,%rbx; mov %rsi,(%rsp); mov %rsi,40(%rsp); lea 8(%rsp),%rdi; mov $4,%ecx; xor %eax,%eax; rep stosq; call f; Q1: add $64,%rsp; pop %rbx; ret`,
		code: "534883ec404889fb488934244889742428488d7c2408b90400000031c0f348abe8000000004883c4405bc3",
		asks: []ask{
			{pc: 37, suspended: true, arg: 0, want: "rbx"},
			{pc: 37, suspended: true, arg: 1, want: "[CFA-0x50]"},
		},
	},
	{
		name: "save area survives an escape",
		asm:  `push %rbx; push %r12; sub $24,%rsp; mov %rdi,%r12; mov %rsp,%rdi; call f; Q1: add $24,%rsp; pop %r12; pop %rbx; mov %r12,%rdi; call f; Q2: ret`,
		code: "5341544883ec184989fc4889e7e8000000004883c418415c5b4c89e7e800000000c3",
		asks: []ask{
			{pc: 18, suspended: true, arg: 0, want: "r12"},
			{pc: 33, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "32-bit copy",
		asm:  `push %rbx; mov %edi,%ebx; call f; Q1: pop %rbx; ret`,
		code: "5389fbe8000000005bc3",
		asks: []ask{
			{pc: 8, suspended: true, arg: 0, want: "rbx/32"},
		},
	},
	{
		name: "sign-extended copy",
		asm:  `push %rbx; movslq %edi,%rbx; call f; Q1: pop %rbx; ret`,
		code: "534863dfe8000000005bc3",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "rbx/32"},
		},
	},
	{
		name: "16-bit copy",
		asm:  `push %rbx; movzwl %di,%ebx; call f; Q1: pop %rbx; ret`,
		code: "530fb7dfe8000000005bc3",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "an 8-bit write into the copy",
		asm:  `push %rbx; mov %rdi,%rbx; mov $1,%bl; call f; Q1: pop %rbx; ret`,
		code: "534889fbb301e8000000005bc3",
		asks: []ask{
			{pc: 11, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "a high byte write into the copy",
		asm:  `push %rbx; mov %rdi,%rbx; mov $1,%bh; call f; Q1: pop %rbx; ret`,
		code: "534889fbb701e8000000005bc3",
		asks: []ask{
			{pc: 11, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "conditional move over the copy",
		asm:  `push %rbx; mov %rdi,%rbx; test %rsi,%rsi; cmove %rsi,%rbx; call f; Q1: pop %rbx; ret`,
		code: "534889fb4885f6480f44dee8000000005bc3",
		asks: []ask{
			{pc: 16, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "exchanged",
		asm:  `push %rbx; push %rbp; mov %rdi,%rbx; mov %rsi,%rbp; xchg %rbx,%rbp; call f; Q1: pop %rbp; pop %rbx; ret`,
		code: "53554889fb4889f54887dde8000000005d5bc3",
		asks: []ask{
			{pc: 16, suspended: true, arg: 0, want: "rbp"},
			{pc: 16, suspended: true, arg: 1, want: "rbx"},
		},
	},
	{
		name: "exchanged with memory",
		asm:  `push %rbx; mov %rdi,%rbx; xchg %rbx,(%rsi); call f; Q1: pop %rbx; ret`,
		code: "534889fb48871ee8000000005bc3",
		asks: []ask{
			{pc: 12, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "exchange and add",
		asm:  `push %rbx; mov %rdi,%rbx; lock xadd %rbx,(%rsi); call f; Q1: pop %rbx; ret`,
		code: "534889fbf0480fc11ee8000000005bc3",
		asks: []ask{
			{pc: 14, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "compare doesn't write",
		asm:  `push %rbx; mov %rdi,%rbx; cmp %rsi,%rbx; test %rbx,%rbx; bt $3,%rbx; call f; Q1: pop %rbx; ret`,
		code: "534889fb4839f34885db480fbae303e8000000005bc3",
		asks: []ask{
			{pc: 20, suspended: true, arg: 0, want: "rbx"},
		},
	},
	{
		name: "implicit results",
		asm:  `mov %rdi,%r8; mov %rsi,%r9; mov %rdx,%r10; mul %rdi; Q1: nop; ret`,
		code: "4989f84989f14989d248f7e790c3",
		asks: []ask{
			{pc: 12, suspended: false, arg: 0, want: "rdi r8"},
			{pc: 12, suspended: false, arg: 2, want: "r10"},
			{pc: 12, suspended: false, arg: 1, want: "rsi r9"},
		},
	},
	{
		name: "cpuid",
		asm:  `mov %rbx,%r8; push %rbx; mov %rdi,%rbx; cpuid; Q1: pop %rbx; ret`,
		code: "4989d8534889fb0fa25bc3",
		asks: []ask{
			{pc: 9, suspended: false, arg: 0, want: "rdi"},
			{pc: 9, suspended: false, arg: 2, want: "lost"},
			{pc: 9, suspended: false, arg: 3, want: "lost"},
		},
	},
	{
		name: "BMI destination",
		asm:  `push %rbx; mov %rdi,%rbx; andn %rsi,%rdx,%rbx; call f; Q1: pop %rbx; ret`,
		code: "534889fbc4e2e8f2dee8000000005bc3",
		asks: []ask{
			{pc: 14, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "BMI sources",
		asm:  `push %rbx; mov %rdi,%rbx; andn %rbx,%rdx,%rax; call f; Q1: pop %rbx; ret`,
		code: "534889fbc4e2e8f2c3e8000000005bc3",
		asks: []ask{
			{pc: 14, suspended: true, arg: 0, want: "rbx"},
		},
	},
	{
		name: "vector move out",
		asm:  `push %rbx; mov %rdi,%rbx; vmovq %xmm0,%rbx; call f; Q1: pop %rbx; ret`,
		code: "534889fbc4e1f97ec3e8000000005bc3",
		asks: []ask{
			{pc: 14, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "vector move in",
		asm:  `push %rbx; mov %rdi,%rbx; vmovq %rbx,%xmm0; movq %rbx,%xmm1; call f; Q1: pop %rbx; ret`,
		code: "534889fbc4e1f96ec366480f6ecbe8000000005bc3",
		asks: []ask{
			{pc: 19, suspended: true, arg: 0, want: "rbx"},
		},
	},
	{
		name: "stack pointer aligned",
		asm:  `push %rbp; mov %rsp,%rbp; push %rbx; and $-64,%rsp; sub $128,%rsp; mov %rdi,24(%rsp); mov %rsi,-24(%rbp); mov %rdx,%rbx; call f; Q1: lea -8(%rbp),%rsp; pop %rbx; pop %rbp; ret`,
		code: "554889e5534883e4c04881ec8000000048897c2418488975e84889d3e800000000488d65f85b5dc3",
		asks: []ask{
			{pc: 33, suspended: true, arg: 0, want: "[((CFA-0x18)&0xffffffffffffffc0)-0x68]"},
			{pc: 33, suspended: true, arg: 2, want: "rbx"},
		},
	},
	{
		name: "variable-size frame",
		asm:  `push %rbp; mov %rsp,%rbp; push %rbx; sub $24,%rsp; mov %rdi,-32(%rbp); mov %rsi,%rbx; sub %rdx,%rsp; call f; Q1: lea -8(%rbp),%rsp; pop %rbx; pop %rbp; ret`,
		code: "554889e5534883ec1848897de04889f34829d4e800000000488d65f85b5dc3",
		asks: []ask{
			{pc: 24, suspended: true, arg: 0, want: "[CFA-0x30]"},
			{pc: 24, suspended: true, arg: 1, want: "rbx"},
		},
	},
	{
		name: "large frame probed in a loop",
		asm:  `push %rbx; lea -0x8000(%rsp),%r11; 1: sub $0x1000,%rsp; orq $0,(%rsp); cmp %r11,%rsp; jne 1b; sub $16,%rsp; mov %rdi,8(%rsp); mov %rsi,%rbx; call f; Q1: add $0x8010,%rsp; pop %rbx; ret`,
		code: "534c8d9c240080ffff4881ec0010000048830c24004c39dc75ef4883ec1048897c24084889f3e8000000004881c4108000005bc3",
		asks: []ask{
			{pc: 43, suspended: true, arg: 0, want: "[CFA-0x8018]"},
			{pc: 43, suspended: true, arg: 1, want: "rbx"},
		},
	},
	{
		name: "stack argument",
		asm:  `push %rbx; mov 16(%rsp),%rbx; call f; Q1: pop %rbx; ret`,
		code: "53488b5c2410e8000000005bc3",
		asks: []ask{
			{pc: 11, suspended: true, arg: 6, want: "rbx [CFA+0x0]"},
			{pc: 11, suspended: true, arg: 7, want: "[CFA+0x8]"},
		},
	},
	{
		name: "stack argument overwritten",
		asm:  `sub $8,%rsp; movq $0,16(%rsp); call f; Q1: add $8,%rsp; ret`,
		code: "4883ec0848c744241000000000e8000000004883c408c3",
		asks: []ask{
			{pc: 18, suspended: true, arg: 6, want: "lost"},
			{pc: 18, suspended: true, arg: 7, want: "[CFA+0x8]"},
		},
	},
	{
		name: "tail call through a pointer",
		asm:  `push %rbx; mov %rdi,%rbx; call f; Q1: mov (%rbx),%rax; pop %rbx; jmp *24(%rax)`,
		code: "534889fbe800000000488b035bff6018",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "rbx"},
		},
	},
	{
		name: "indirect jump inside",
		asm:  `push %rbx; mov %rdi,%rbx; call f; Q1: jmp *%rax`,
		code: "534889fbe800000000ffe0",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "indirect"},
		},
	},
	{
		name: "landing pad that returns",
		asm:  `push %rbx; mov %rdi,%rbx; call f; 1: call f; Q1: pop %rbx; ret; xor %ebx,%ebx; jmp 1b`,
		code: "534889fbe800000000e8000000005bc331dbebf5",
		asks: []ask{
			{pc: 14, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "landing pad that doesn't",
		asm:  `push %rbx; mov %rdi,%rbx; call f; 1: call f; Q1: pop %rbx; ret; mov %rax,%rdi; xor %ebx,%ebx; call f; Q2: ud2`,
		code: "534889fbe800000000e8000000005bc34889c731dbe8000000000f0b",
		asks: []ask{
			{pc: 14, suspended: true, arg: 0, want: "rbx"},
			{pc: 26, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "no path leads there",
		asm:  `push %rbx; mov %rdi,%rbx; pop %rbx; ret; nop; nop; Q1: nop`,
		code: "534889fb5bc3909090",
		asks: []ask{
			{pc: 8, suspended: false, arg: 0, want: "unreached"},
		},
	},
	{
		name: "endbr and notrack",
		asm:  `endbr64; push %rbx; mov %rdi,%rbx; call f; Q1: pop %rbx; notrack jmp *%rax`,
		code: "f30f1efa534889fbe8000000005b3effe0",
		asks: []ask{
			{pc: 13, suspended: true, arg: 0, want: "rbx"},
		},
	},
	{
		name: "unknown instruction",
		asm:  `push %rbx; mov %rdi,%rbx; mov %rsi,%rcx; .byte 0x0f,0x38,0xc8,0xca; Q1: pop %rbx; ret`,
		code: "534889fb4889f10f38c8ca5bc3",
		asks: []ask{
			{pc: 11, suspended: false, arg: 0, want: "rbx rdi"},
		},
	},
	{
		name: "undecodable instruction",
		asm:  `push %rbx; mov %rdi,%rbx; .byte 0x06; Q1: pop %rbx; ret`,
		code: "534889fb065bc3",
		asks: []ask{
			{pc: 5, suspended: false, arg: 0, want: "undecodable"},
		},
	},
	{
		name: "transaction",
		asm:  `push %rbx; mov %rdi,%rbx; xbegin 1f; mov %rsi,%rbx; xend; 1: call f; Q1: pop %rbx; ret`,
		code: "534889fbc7f8060000004889f30f01d5e8000000005bc3",
		asks: []ask{
			{pc: 21, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "system call keeps arguments",
		asm:  `mov %rdi,%r10; mov $7,%eax; syscall; Q1: ret`,
		code: "4989fab8070000000f05c3",
		asks: []ask{
			{pc: 10, suspended: true, arg: 0, want: "rdi r10"},
			{pc: 10, suspended: true, arg: 3, want: "lost"},
		},
	},
	{
		name: "jump to a part that isn't there",
		asm:  `push %rbx; mov %rdi,%rbx; call f; Q1: test %eax,%eax; jne .+4096; pop %rbx; ret`,
		code: "534889fbe80000000085c00f85fa0f00005bc3",
		asks: []ask{
			{pc: 9, suspended: true, arg: 0, want: "outside"},
		},
	},
	{
		name: "conditional tail call",
		asm:  `test %edi,%edi; jne .+4096; mov %rdi,%rsi; Q1: ret`,
		code: "85ff0f85fa0f00004889fec3",
		asks: []ask{
			{pc: 11, suspended: false, arg: 0, want: "rsi rdi"},
		},
	},
	{
		name: "difference of frame addresses stays suspect",
		asm:  `sub $40,%rsp; mov %rdi,24(%rsp); lea 32(%rsp),%rax; and $-16,%rax; mov %rax,%rdi; call f; Q1: add $40,%rsp; ret`,
		code: "4883ec2848897c2418488d4424204883e0f04889c7e8000000004883c428c3",
		asks: []ask{
			{pc: 26, suspended: true, arg: 0, want: "lost"},
		},
	},
	{
		name: "loop to the first instruction",
		asm:  `1: mov %rdi,%rax; add $8,%rdi; dec %esi; jne 1b; Q1: ret`,
		code: "4889f84883c708ffce75f5c3",
		asks: []ask{
			{pc: 11, suspended: false, arg: 0, want: "lost"},
		},
	},
	{
		name: "old value of a loop variable",
		asm:  `push %rbx; push %r12; sub $8,%rsp; xor %r12d,%r12d; 1: mov %r12,%rbx; call f; mov %rax,%r12; mov %r12,%rdi; call f; Q1: test %eax,%eax; jne 1b; add $8,%rsp; pop %r12; pop %rbx; ret`,
		code: "5341544883ec084531e44c89e3e8000000004989c44c89e7e80000000085c075e94883c408415c5bc3",
		asks: []ask{
			{pc: 29, suspended: true, arg: 0, want: "lost"},
		},
	},
}
