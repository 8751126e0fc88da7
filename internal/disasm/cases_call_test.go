package disasm

// passedCases are calls, numberCases system calls; see locateCases.
var passedCases = []locateCase{
	{
		name: "a constant",
		asm:  `sub $8,%rsp; mov $5,%edi; xor %esi,%esi; call f; Q1: ret`,
		code: "4883ec08bf0500000031f6e800000000c3",
		asks: []ask{
			{pc: 16, arg: 0, want: "0x5"},
			{pc: 16, arg: 1, want: "0x0"},
		},
	},
	{
		name: "a negative constant",
		asm:  `sub $8,%rsp; mov $-1,%rdi; mov $0xffffff9c,%esi; call f; Q1: ret`,
		code: "4883ec0848c7c7ffffffffbe9cffffffe800000000c3",
		asks: []ask{
			{pc: 21, arg: 0, want: "0xffffffffffffffff"},
			{pc: 21, arg: 1, want: "0xffffff9c"},
		},
	},
	{
		name: "an address in the image",
		asm:  `sub $8,%rsp; lea 0x1000(%rip),%rdi; lea -0x1000(%rip),%rsi; call f; Q1: ret`,
		code: "4883ec08488d3d00100000488d3500f0ffffe800000000c3",
		asks: []ask{
			{pc: 23, arg: 0, want: "0x55555555500b"},
			{pc: 23, arg: 1, want: "0x555555553012"},
		},
	},
	{
		name: "a buffer in the frame",
		asm:  `sub $1032,%rsp; mov %rsp,%rdi; lea 512(%rsp),%rsi; call f; Q1: ret`,
		code: "4881ec080400004889e7488db42400020000e800000000c3",
		asks: []ask{
			{pc: 23, arg: 0, want: "CFA-0x410"},
			{pc: 23, arg: 1, want: "CFA-0x210"},
		},
	},
	{
		name: "a result kept in a register",
		asm:  `push %rbx; call f; mov %rax,%rbx; mov %rbx,%rdi; call f; Q1: ret`,
		code: "53e8000000004889c34889dfe800000000c3",
		asks: []ask{
			{pc: 17, arg: 0, want: "rbx"},
		},
	},
	{
		name: "a result kept in a slot",
		asm:  `sub $24,%rsp; call f; mov %rax,8(%rsp); mov 8(%rsp),%rdi; call f; Q1: ret`,
		code: "4883ec18e8000000004889442408488b7c2408e800000000c3",
		asks: []ask{
			{pc: 24, arg: 0, want: "[CFA-0x18]"},
		},
	},
	{
		name: "a result overwritten",
		asm:  `push %rbx; call f; mov %rax,%rbx; mov %rbx,%rdi; xor %ebx,%ebx; call f; Q1: ret`,
		code: "53e8000000004889c34889df31dbe800000000c3",
		asks: []ask{
			{pc: 19, arg: 0, want: "lost"},
		},
	},
	{
		name: "one of two values, in one register",
		asm:  `push %rbx; call f; mov %rax,%rbx; test %eax,%eax; jne 1f; call f; mov %rax,%rbx; 1: mov %rbx,%rdi; call f; Q1: ret`,
		code: "53e8000000004889c385c07508e8000000004889c34889dfe800000000c3",
		asks: []ask{
			{pc: 29, arg: 0, want: "rbx"},
		},
	},
	{
		name: "its own argument",
		asm:  `sub $8,%rsp; mov %rsi,%rdi; mov %edx,%esi; call f; Q1: ret`,
		code: "4883ec084889f789d6e800000000c3",
		asks: []ask{
			{pc: 14, arg: 0, want: "argument 2"},
			{pc: 14, arg: 1, want: "argument 3/32"},
		},
	},
	{
		name: "its own argument, still held",
		asm:  `push %rbx; mov %rsi,%rbx; mov %rsi,%rdi; call f; Q1: ret`,
		code: "534889f34889f7e800000000c3",
		asks: []ask{
			{pc: 12, arg: 0, want: "rbx argument 2"},
		},
	},
	{
		name: "the caller's register",
		asm:  `sub $8,%rsp; mov %rbx,%rdi; xor %ebx,%ebx; call f; Q1: ret`,
		code: "4883ec084889df31dbe800000000c3",
		asks: []ask{
			{pc: 14, arg: 0, want: "the caller's rbx"},
		},
	},
	{
		name: "one of two constants",
		asm:  `sub $8,%rsp; mov $1,%edi; test %esi,%esi; je 1f; mov $2,%edi; 1: call f; Q1: ret`,
		code: "4883ec08bf0100000085f67405bf02000000e800000000c3",
		asks: []ask{
			{pc: 23, arg: 0, want: "ambiguous"},
		},
	},
	{
		name: "a constant or something else",
		asm:  `sub $8,%rsp; test %esi,%esi; je 1f; mov $2,%edi; 1: call f; Q1: ret`,
		code: "4883ec0885f67405bf02000000e800000000c3",
		asks: []ask{
			{pc: 18, arg: 0, want: "lost"},
		},
	},
	{
		name: "loaded from memory",
		asm:  `sub $8,%rsp; mov (%rbx),%rdi; call f; Q1: ret`,
		code: "4883ec08488b3be800000000c3",
		asks: []ask{
			{pc: 12, arg: 0, want: "lost"},
		},
	},
	{
		name: "of two turns of a loop the later",
		asm:  `push %rbx; push %r12; sub $8,%rsp; xor %r12d,%r12d; 1: mov %r12,%rbx; call f; mov %rax,%r12; mov %r12,%rdi; mov %rbx,%rsi; call f; Q1: test %eax,%eax; jne 1b; ret`,
		code: "5341544883ec084531e44c89e3e8000000004989c44c89e74889dee80000000085c075e6c3",
		asks: []ask{
			{pc: 32, arg: 0, want: "r12"},
			{pc: 32, arg: 1, want: "rbx"},
		},
	},
	{
		name: "on the stack",
		asm:  `sub $8,%rsp; push $9; push $7; call f; Q1: ret`,
		code: "4883ec086a096a07e800000000c3",
		asks: []ask{
			{pc: 13, arg: 6, want: "0x7"},
			{pc: 13, arg: 7, want: "0x9"},
			{pc: 13, arg: 8, want: "lost"},
		},
	},
	{
		name: "what a call before left",
		asm:  `sub $8,%rsp; mov %rdi,%rsi; call f; call f; Q1: ret`,
		code: "4883ec084889fee800000000e800000000c3",
		asks: []ask{
			{pc: 17, arg: 0, want: "lost"},
			{pc: 17, arg: 1, want: "lost"},
		},
	},
	{
		name: "arithmetic",
		asm:  `sub $8,%rsp; lea 8(%rdi),%rdi; add $16,%rsi; neg %rdx; call f; Q1: ret`,
		code: "4883ec08488d7f084883c61048f7dae800000000c3",
		asks: []ask{
			{pc: 20, arg: 0, want: "lost"},
			{pc: 20, arg: 1, want: "lost"},
			{pc: 20, arg: 2, want: "lost"},
		},
	},
	{
		name: "aligned buffer",
		asm:  `push %rbp; mov %rsp,%rbp; and $-32,%rsp; sub $96,%rsp; lea 32(%rsp),%rdi; call f; Q1: leave; ret`,
		code: "554889e54883e4e04883ec60488d7c2420e800000000c9c3",
		asks: []ask{
			{pc: 22, arg: 0, want: "((CFA-0x10)&0xffffffffffffffe0)-0x40"},
		},
	},
}

var numberCases = []locateCase{
	{
		name: "poll of Debian 12's libc, alone",
		asm:  `mov $7,%eax; syscall; Q1: ret`,
		code: "b8070000000f05c3",
		asks: []ask{{pc: 5, want: "7"}},
	},
	{
		name: "read: number 0",
		asm:  `xor %eax,%eax; syscall; Q1: ret`,
		code: "31c00f05c3",
		asks: []ask{{pc: 2, want: "0"}},
	},
	{
		name: "subtracted to 0",
		asm:  `sub %eax,%eax; syscall; Q1: ret`,
		code: "29c00f05c3",
		asks: []ask{{pc: 2, want: "0"}},
	},
	{
		name: "32 bits matter",
		asm:  `movabs $0xffffffff00000007,%rax; syscall; Q1: ret`,
		code: "48b807000000ffffffff0f05c3",
		asks: []ask{{pc: 10, want: "7"}},
	},
	{
		name: "two numbers meet",
		asm:  `mov $7,%eax; test %edi,%edi; je 1f; mov $271,%eax; 1: syscall; Q1: ret`,
		code: "b80700000085ff7405b80f0100000f05c3",
		asks: []ask{{pc: 14, want: "7 271"}},
	},
	{
		name: "a number or anything",
		asm:  `mov $7,%eax; test %edi,%edi; je 1f; mov (%rsi),%eax; 1: syscall; Q1: ret`,
		code: "b80700000085ff74028b060f05c3",
		asks: []ask{{pc: 11, want: "lost"}},
	},
	{
		name: "the number of an earlier call",
		asm:  `mov $7,%eax; syscall; syscall; Q1: ret`,
		code: "b8070000000f050f05c3",
		asks: []ask{{pc: 7, want: "lost"}},
	},
	{
		name: "argument",
		asm:  `mov %rdi,%rax; mov %rsi,%rdi; syscall; Q1: ret`,
		code: "4889f84889f70f05c3",
		asks: []ask{{pc: 6, want: "argument 1"}},
	},
	{
		name: "stack argument",
		asm:  `mov 8(%rsp),%rax; syscall; Q1: ret`,
		code: "488b4424080f05c3",
		asks: []ask{{pc: 5, want: "[CFA+0x0] argument 7"}},
	},
	{
		name: "inside another instruction",
		asm:  `mov $0x050f,%eax; Q1: ret`,
		code: "b80f050000c3",
		asks: []ask{{pc: 1, want: "unreached"}},
	},
}
