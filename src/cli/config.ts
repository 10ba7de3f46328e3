/** `tweed config`: the network config in the registry. */

import { readConfigFile } from './config-file.ts'
import { createProgram, runProgram } from './program.ts'
import { useRegistry, withRegistry } from './registry.ts'

interface RegistryOption {
  readonly registry: string
}

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

async function get({ registry: path }: RegistryOption): Promise<void> {
  const config = await useRegistry(path, (registry) => registry.readConfig(new AbortController().signal))
  if (config === undefined) {
    process.stderr.write(
      `tweed: sqlite:${path} has no network config: \`tweed config put FILE\` writes one\n`,
    )
    process.exitCode = 1
  } else {
    process.stdout.write(config.endsWith('\n') ? config : `${config}\n`)
  }
}

async function put(file: string, { registry: path }: RegistryOption): Promise<void> {
  const config = await readConfigFile(file)
  await useRegistry(path, (registry) => registry.putConfig(config))
}

async function check(file: string): Promise<void> {
  await readConfigFile(file)
  process.stdout.write('the config can be used\n')
}
