/** `tweed demo`: the story of the overlay, told by this machine. */

import { styleText } from 'node:util'
import { DemoFailed, playDemo } from '../lab/demo/demo.ts'
import type { LabRegistry } from '../lab/topology.ts'
import { untilInterrupted } from './interrupt.ts'
import { registryOption } from './lab.ts'
import { createProgram, runProgram } from './program.ts'
import { ownProgram } from './self.ts'

export async function runDemo(argv: readonly string[]): Promise<void> {
  const program = createProgram(
    'tweed demo',
    'the overlay in four acts, on two hosts made of network namespaces',
  )
    .option('--name <name>', 'of the lab that it is played in', 'demo')
    .addOption(registryOption())
    .action(demo)
  await runProgram(program, argv)
}

async function demo({ name, registry }: { name: string; registry: LabRegistry }): Promise<void> {
  const write = (text: string): void => void process.stdout.write(text)
  const start = performance.now()
  try {
    const claims = await untilInterrupted((signal) =>
      playDemo({ name, registry, program: ownProgram(), signal, write }),
    )
    const took = ((performance.now() - start) / 1000).toFixed(1)
    write(`\n${styleText(['bold', 'green'], 'PASSED')}: all ${claims} checks hold, in ${took} s.\n`)
  } catch (error) {
    if (!(error instanceof DemoFailed)) throw error
    write(
      `\n${styleText(['bold', 'red'], 'FAILED')}: ${error.message}\nThe lab is gone: nothing is left of it.\n`,
    )
    process.exitCode = 1
  }
}
