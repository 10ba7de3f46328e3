/** What a lab needs of the machine, tried out in a namespace that is thrown away. */

import { CommandError, run } from './command.ts'
import { LabError, namespacePrefix } from './topology.ts'

/** What a kernel may have been built without, each with a command that makes one. */
const LINKS = [
  { feature: 'vxlan links', module: 'vxlan', command: 'link add vxlan0 type vxlan id 1 dstport 8472' },
  { feature: 'veth links', module: 'veth', command: 'link add veth0 type veth peer name veth1' },
  { feature: 'bridges', module: 'bridge', command: 'link add br0 type bridge' },
] as const

/** Root and the programs. @throws {LabError} One line: what is missing, and what to do. */
export async function checkMachine(): Promise<void> {
  if (process.getuid?.() !== 0) throw new LabError('network namespaces need root: run this with sudo')
  for (const program of ['ip', 'bridge']) {
    await orMissing(program, ['-V'], `${program} is missing: apt-get install iproute2`)
  }
  await orMissing('nsenter', ['-V'], 'nsenter is missing: apt-get install util-linux')
}

/** What the kernel can. @throws {LabError} One line: what is missing, and what to do. */
export async function checkKernel(lab: string): Promise<void> {
  const scratch = `${namespacePrefix(lab)}check`
  await orMissing(
    'ip',
    ['netns', 'add', scratch],
    'network namespaces cannot be made here: use a machine of your own, or a container with --privileged',
  )
  try {
    for (const { feature, module, command } of LINKS) {
      const advice = `this kernel has no ${feature}: modprobe ${module}, or use a kernel that has them`
      await orMissing('ip', ['-n', scratch, ...command.split(' ')], advice)
    }
  } finally {
    await run('ip', ['netns', 'delete', scratch])
  }
}

async function orMissing(program: string, args: readonly string[], advice: string): Promise<void> {
  try {
    await run(program, args)
  } catch (error) {
    if (error instanceof CommandError) throw new LabError(`${advice} (${error.message})`)
    throw error
  }
}
