package script

import (
	"slices"

	"github.com/yuin/gopher-lua/ast"
)

// The names under which a rewritten chunk knows its three helpers. No script can spell them.
const (
	nameConcat  = "(concat)"
	nameWritten = "(written)"
	nameGlobals = "(globals)"
)

// maxOperands is how many operands of .. go into one call of the concat helper; each takes
// a register while it is evaluated.
const maxOperands = 32

// rewrite changes what the virtual machine would do unguarded into calls of Go functions
// that guard it, and returns a chunk that takes these functions and returns the script:
//
//   - a .. b becomes (concat)(a, b), because the machine's own operator has no size limit;
//   - t.k = v becomes (written)(t).k = v, and an assignment to a global x becomes
//     (written)((globals)).x = v, so that what a call has changed can be put back after it.
//
// Lines stay as they were, for error messages.
func rewrite(chunk []ast.Stmt) []ast.Stmt {
	r := &rewriter{}
	main := &ast.FunctionExpr{ParList: &ast.ParList{HasVargs: true}, Stmts: chunk}
	r.function(main)
	helpers := &ast.LocalAssignStmt{
		Names: []string{nameConcat, nameWritten, nameGlobals},
		Exprs: []ast.Expr{&ast.Comma3Expr{}},
	}
	ret := &ast.ReturnStmt{Exprs: []ast.Expr{main}}
	if n := len(chunk); n > 0 {
		main.SetLine(chunk[0].Line())
		main.SetLastLine(chunk[n-1].LastLine())
	}
	return []ast.Stmt{helpers, ret}
}

type rewriter struct {
	scopes []map[string]bool // the local names of each block around the current place
}

func (r *rewriter) enter()              { r.scopes = append(r.scopes, map[string]bool{}) }
func (r *rewriter) leave()              { r.scopes = r.scopes[:len(r.scopes)-1] }
func (r *rewriter) declare(n ...string) { s := r.scopes[len(r.scopes)-1]; set(s, n) }

func set(s map[string]bool, names []string) {
	for _, n := range names {
		s[n] = true
	}
}

func (r *rewriter) local(name string) bool {
	for _, s := range r.scopes {
		if s[name] {
			return true
		}
	}
	return false
}

// block rewrites the statements of a block whose scope is open.
func (r *rewriter) block(stmts []ast.Stmt) []ast.Stmt {
	for i, s := range stmts {
		stmts[i] = r.stmt(s)
	}
	return stmts
}

// scoped rewrites a block with a scope of its own, in which names are local.
func (r *rewriter) scoped(stmts []ast.Stmt, names ...string) []ast.Stmt {
	r.enter()
	defer r.leave()
	r.declare(names...)
	return r.block(stmts)
}

func (r *rewriter) stmt(s ast.Stmt) ast.Stmt {
	switch s := s.(type) {
	case *ast.AssignStmt:
		s.Rhs = r.exprs(s.Rhs)
		for i, l := range s.Lhs {
			s.Lhs[i] = r.target(l)
		}
	case *ast.LocalAssignStmt:
		if len(s.Names) == 1 && len(s.Exprs) == 1 {
			if _, ok := s.Exprs[0].(*ast.FunctionExpr); ok {
				r.declare(s.Names...) // a local function sees itself
			}
		}
		s.Exprs = r.exprs(s.Exprs)
		r.declare(s.Names...)
	case *ast.FuncCallStmt:
		s.Expr = r.expr(s.Expr)
	case *ast.DoBlockStmt:
		s.Stmts = r.scoped(s.Stmts)
	case *ast.WhileStmt:
		s.Condition = r.expr(s.Condition)
		s.Stmts = r.scoped(s.Stmts)
	case *ast.RepeatStmt:
		r.enter() // the condition sees the locals of the body
		s.Stmts = r.block(s.Stmts)
		s.Condition = r.expr(s.Condition)
		r.leave()
	case *ast.IfStmt:
		s.Condition = r.expr(s.Condition)
		s.Then = r.scoped(s.Then)
		s.Else = r.scoped(s.Else)
	case *ast.NumberForStmt:
		s.Init, s.Limit = r.expr(s.Init), r.expr(s.Limit)
		if s.Step != nil {
			s.Step = r.expr(s.Step)
		}
		s.Stmts = r.scoped(s.Stmts, s.Name)
	case *ast.GenericForStmt:
		s.Exprs = r.exprs(s.Exprs)
		s.Stmts = r.scoped(s.Stmts, s.Names...)
	case *ast.FuncDefStmt:
		if s.Name.Func == nil { // function t:m() end
			s.Name.Receiver = r.written(r.expr(s.Name.Receiver))
			r.function(s.Func, "self")
		} else {
			r.function(s.Func)
			s.Name.Func = r.target(s.Name.Func)
		}
	case *ast.ReturnStmt:
		s.Exprs = r.exprs(s.Exprs)
	}
	return s
}

// target rewrites the left side of an assignment.
func (r *rewriter) target(e ast.Expr) ast.Expr {
	switch e := e.(type) {
	case *ast.IdentExpr:
		if r.local(e.Value) {
			return e
		}
		key := at(&ast.StringExpr{Value: e.Value}, e)
		return at(&ast.AttrGetExpr{Object: r.written(at(&ast.IdentExpr{Value: nameGlobals}, e)), Key: key}, e)
	case *ast.AttrGetExpr:
		e.Object, e.Key = r.written(r.expr(e.Object)), r.expr(e.Key)
	}
	return e
}

func (r *rewriter) written(object ast.Expr) ast.Expr {
	return call(nameWritten, object, object)
}

func (r *rewriter) function(f *ast.FunctionExpr, extra ...string) {
	r.enter()
	defer r.leave()
	r.declare(extra...)
	if f.ParList.HasVargs {
		r.declare("arg") // Lua 5.0's table of the arguments, which gopher-lua still makes
	}
	r.declare(f.ParList.Names...)
	f.Stmts = r.block(f.Stmts)
}

func (r *rewriter) exprs(es []ast.Expr) []ast.Expr {
	for i, e := range es {
		es[i] = r.expr(e)
	}
	return es
}

func (r *rewriter) expr(e ast.Expr) ast.Expr {
	switch e := e.(type) {
	case *ast.AttrGetExpr:
		e.Object, e.Key = r.expr(e.Object), r.expr(e.Key)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			if f.Key != nil {
				f.Key = r.expr(f.Key)
			}
			f.Value = r.expr(f.Value)
		}
	case *ast.FuncCallExpr:
		if e.Func != nil {
			e.Func = r.expr(e.Func)
		}
		if e.Receiver != nil {
			e.Receiver = r.expr(e.Receiver)
		}
		e.Args = r.exprs(e.Args)
	case *ast.LogicalOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.RelationalOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.ArithmeticOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.StringConcatOpExpr:
		return r.concat(e)
	case *ast.UnaryMinusOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.UnaryNotOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.UnaryLenOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.FunctionExpr:
		r.function(e)
	}
	return e
}

// concat makes one call of a chain a .. b .. c, or nested ones of a long chain. Operands are
// evaluated from left to right, as Lua does.
func (r *rewriter) concat(e *ast.StringConcatOpExpr) ast.Expr {
	first := e
	var operands []ast.Expr
	for {
		operands = append(operands, r.expr(e.Lhs))
		next, ok := e.Rhs.(*ast.StringConcatOpExpr)
		if !ok {
			break
		}
		e = next
	}
	operands = append(operands, r.expr(e.Rhs))
	for len(operands) > maxOperands {
		var joined []ast.Expr
		for group := range slices.Chunk(operands, maxOperands) {
			joined = append(joined, call(nameConcat, first, group...))
		}
		operands = joined
	}
	return call(nameConcat, first, operands...)
}

// call returns a call, on the line of where, of a helper that returns one value. Only one
// value of the last argument is passed.
func call(helper string, where ast.Expr, args ...ast.Expr) ast.Expr {
	switch last := args[len(args)-1].(type) {
	case *ast.FuncCallExpr:
		last.AdjustRet = true
	case *ast.Comma3Expr:
		last.AdjustRet = true
	}
	return at(&ast.FuncCallExpr{Func: at(&ast.IdentExpr{Value: helper}, where), Args: args, AdjustRet: true}, where)
}

// at gives e the line of where.
func at[E ast.Expr](e E, where ast.Expr) E {
	e.SetLine(where.Line())
	e.SetLastLine(where.LastLine())
	return e
}
