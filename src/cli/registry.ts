/** Which registry an admin command works on: the agent's flags for it, and its environment. */

import { type Command, Option } from 'commander'
import { variableName } from '../config/flags.ts'
import type { LeaseRegistry, RegistryAdmin } from '../lease/registry.ts'
import { AGENT_FLAGS, VARIABLE_PREFIX } from './agent-flags.ts'
import { openRegistry, type RegistryChoice } from './open-registry.ts'

/** The options of a command that works on a registry, as commander names them. */
export interface RegistryOptions {
  readonly registry: string
  readonly etcdEndpoints: string
  readonly etcdPrefix: string
  readonly etcdCafile: string
  readonly etcdCertfile: string
  readonly etcdKeyfile: string
  readonly etcdUsername: string
  readonly etcdPassword: string
  readonly kubeApiUrl: string
  readonly kubeAnnotationPrefix: string
  readonly kubeconfigFile: string
  readonly netConfigPath: string
}

const FLAGS = [
  'registry',
  'etcd-endpoints',
  'etcd-prefix',
  'etcd-cafile',
  'etcd-certfile',
  'etcd-keyfile',
  'etcd-username',
  'etcd-password',
  'kube-api-url',
  'kube-annotation-prefix',
  'kubeconfig-file',
  'net-config-path',
] as const satisfies readonly (keyof typeof AGENT_FLAGS)[]

/** Adds them to a command. */
export function withRegistry(command: Command): Command {
  for (const name of FLAGS) {
    const { help, default: value } = AGENT_FLAGS[name]
    const variable = variableName(VARIABLE_PREFIX, name)
    command.addOption(new Option(`--${name} <value>`, help).default(value).env(variable))
  }
  return command
}

/** Opens the registry for as long as `work` takes. @throws {RegistryError} */
export async function useRegistry<T>(
  options: RegistryOptions,
  work: (registry: LeaseRegistry & RegistryAdmin) => Promise<T>,
): Promise<T> {
  const registry = await openRegistry(choiceOf(options))
  try {
    return await work(registry)
  } finally {
    await registry.close()
  }
}

function choiceOf(options: RegistryOptions): RegistryChoice {
  return {
    registry: options.registry,
    endpoints: options.etcdEndpoints,
    prefix: options.etcdPrefix,
    ca: options.etcdCafile,
    cert: options.etcdCertfile,
    key: options.etcdKeyfile,
    user: options.etcdUsername,
    password: options.etcdPassword,
    kubernetes: {
      apiUrl: options.kubeApiUrl,
      kubeconfig: options.kubeconfigFile,
      annotationPrefix: options.kubeAnnotationPrefix,
      netConfig: options.netConfigPath,
    },
  }
}
