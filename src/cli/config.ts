/** `tweed config`: the network config in the registry. */

import { RegistryError } from '../lease/registry.ts'
import { readConfigFile } from './config-file.ts'
import { createProgram, runProgram } from './program.ts'
import { type RegistryOptions, useRegistry, withRegistry } from './registry.ts'

export async function runConfig(argv: readonly string[]): Promise<void> {
  const program = createProgram('tweed config', 'the network config that the hosts of a network share')
  withRegistry(program.command('get').description('print it as it was written')).action(get)
  withRegistry(
    program
      .command('put')
      .description('check it, then write it to the registry')
      .argument('<file>', 'the config as JSON; - for standard input'),
  ).action(put)
  program
    .command('check')
    .description('say whether it can be used; change nothing')
    .argument('<file>', 'the config as JSON; - for standard input')
    .action(check)
  await runProgram(program, argv)
}

async function get(options: RegistryOptions): Promise<void> {
  const config = await useRegistry(options, async (registry) => {
    const text = await registry.readConfig(new AbortController().signal)
    if (text !== undefined) return text
    throw new RegistryError(
      'not-found',
      `${registry.name} has no network config: \`tweed config put FILE\` writes one`,
    )
  })
  process.stdout.write(config.endsWith('\n') ? config : `${config}\n`)
}

async function put(file: string, options: RegistryOptions): Promise<void> {
  const config = await readConfigFile(file)
  await useRegistry(options, (registry) => registry.putConfig(config))
}

async function check(file: string): Promise<void> {
  await readConfigFile(file)
  process.stdout.write('the config can be used\n')
}
